"""`.copier-answers.yml`: a project's names, and the version of the template that it has, for `make update`.

Each value is on a line of its own, written as JSON, which is YAML too. Needs nothing but the standard library.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from plinth.testing.locks import SetupError

FILE = ".copier-answers.yml"
COMMIT, SOURCE = "_commit", "_src_path"  # Copier's names
PENDING = "_update_to"  # a version whose conflicts are not resolved yet
HEAD = "# Written by `make init` and `make update`; the latter needs it.\n"


def read_answers(root: Path) -> dict[str, str]:
    """Empty if there is no file. Raises SetupError if a line cannot be read."""
    file = root / FILE
    lines = re.findall(r"(?m)^(\w+):[ \t]*(.*)$", file.read_text() if file.exists() else "")
    try:
        return {name: str(json.loads(value)) for name, value in lines}
    except ValueError as error:
        raise SetupError(f'{FILE} cannot be read: write each line as NAME: "value", as git has it.') from error


def write_answers(root: Path, answers: Mapping[str, str]) -> None:
    lines = [f"{name}: {json.dumps(answers[name], ensure_ascii=False)}\n" for name in sorted(answers)]
    (root / FILE).write_text(HEAD + "".join(lines))
