"""What a removal changes in a project's texts, and what of the project still needs what goes."""

import re
from collections.abc import Iterator
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.project import Place
from tools.removals.removal import Removal

# Whatever else is Python is the service's.
NOT_THE_SERVICES = ("plinth/", "tools/", "tests/faults/", "migrations/versions/")


def taken_out(removal: Removal, project: Path) -> dict[str, str]:
    """The files that stay and change, with their new texts. Raises SetupError with each text that is missing."""
    texts: dict[str, str] = {}
    lost: list[Place] = []

    def read(file: str) -> str:
        if file not in texts:
            texts[file] = (project / file).read_text() if (project / file).is_file() else ""
        return texts[file]

    for place, rest in removal.texts:
        if read(place.file).count(place.text) == 1:
            texts[place.file] = texts[place.file].replace(place.text, rest)
        else:
            lost.append(place)
    for place in removal.elements:
        name = rf"(?<![\w.]){re.escape(place.text)}(?![\w.])"
        if len(re.findall(name, read(place.file))) == 1:
            text = re.sub(rf"{name},\s*|,\s*{name}|{name}", "", texts[place.file])
            texts[place.file] = re.sub(r"(?m)= \(([\w.]+)\)$", r"= (\1,)", text)  # a tuple of one
        else:
            lost.append(place)
    gone = [path for path in (*removal.paths, *removal.replaced) if not (project / path).is_file()]
    sentences = [
        f"{file} does not contain this once: {_line_of(text, texts[file])}" for file, text in lost if file not in gone
    ]
    sentences += [f"{path} does not exist." for path in gone]
    if sentences:
        sentences.append("Restore that first; nothing was changed.")
        raise SetupError("\n".join(sentences))
    return {**texts, **removal.replaced}


def _line_of(lost: str, text: str) -> str:
    """Of a text that is not there as a whole, the first line that is missing."""
    first, *others = lost.strip("\n").splitlines()
    there = text.splitlines()
    return next((line for line in (first, *others) if line not in there), first).strip()


def references(removal: Removal, project: Path) -> Iterator[str]:
    """The lines of the service that need what goes."""
    pattern = re.compile("|".join(removal.references))
    for path in sorted(project.rglob("*.py")):
        name = str(path.relative_to(project))
        if not name.startswith(NOT_THE_SERVICES):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if pattern.search(line):
                    yield f"{name}:{number}: {line.strip()}"
