"""What a removal consists of: the files that go, and what goes out of those that stay.

Like the lists in tools/project.py, these are exact text: one that is missing is an error, so a list that falls behind
is noticed. What cannot be taken out by files, texts and elements has to be untied first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tools.project import Place


@dataclass(frozen=True)
class Removal:
    about: str
    """What goes, in a few words."""
    paths: Sequence[str]
    """The files that go."""
    texts: Sequence[tuple[Place, str]]
    """Texts that stand once in a file, and what replaces each."""
    elements: Sequence[Place]
    """Elements of a list, a tuple or an import on one line or several, which stand once in a file."""
    references: Sequence[str]
    """Patterns of what no Python file of the project may contain afterwards."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Files that go but for what others need of them, and what they are then."""
    creates: str = ""
    """The id of the revision that created the tables, where they are plinth's. Otherwise they are models of the app."""
    needed_by: Mapping[str, str] = field(default_factory=dict)
    """Files that must not be there, and the sentence that says why."""
    stays: str = ""
    """A sentence about what is left."""


def joined(one: Removal, other: Removal) -> Removal:
    """Both at once, described as the other."""
    return replace(
        other,
        paths=[*one.paths, *other.paths],
        texts=[*one.texts, *other.texts],
        elements=[*one.elements, *other.elements],
        references=[*one.references, *other.references],
    )


def lines(file: str, text: str) -> list[tuple[Place, str]]:
    """Each line by itself, because a line of another resource may stand between them."""
    return [(Place(file, line), "") for line in text.splitlines(keepends=True)]


def blocks(file: str, text: str, end: str = "\n") -> list[tuple[Place, str]]:
    """The same for functions, which two blank lines separate. `end` goes with each."""
    return [(Place(file, block.strip("\n") + end), "") for block in text.split("\n\n\n")]
