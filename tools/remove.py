"""`app remove example`: takes a part of the project out that it can do without (see tools/removals/).

The work is done in a copy first: texts, imports that nothing uses any more, and the migration that drops the tables.
The project is changed only if all of that succeeds. It must have no uncommitted changes, so that git can undo it.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.project import TEMPLATE_PATHS, Place
from tools.removals import REMOVALS, Removal

ROOT = Path(__file__).resolve().parent.parent
# Whatever else is Python is the service's.
NOT_THE_SERVICES = ("plinth/", "tools/", "tests/faults/", "migrations/versions/")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    options = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="remove-") as directory:
            copy = Path(directory, "project")
            written = prepare(root, copy, options.name)
            gone = REMOVALS[options.name].paths
            if not options.dry_run:
                carry_out(root, copy, written, gone)
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(*(f"remove {path}" for path in gone), *(f"write  {path}" for path in written), sep="\n")
    if options.dry_run:
        print("This is what would be done; nothing was changed.")
    else:
        print("Next: `make check`, `make test`, look at `git diff`, and commit. `app migrate` then drops the tables.")
    return 0


def prepare(root: Path, copy: Path, name: str) -> list[str]:
    """Copy the project without the part. Returns the files of the copy that differ, in order; raises SetupError."""
    removal = REMOVALS[name]
    for path in _committed(root):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, copy / path)
    before = _revisions(copy)
    changed = taken_out(removal, copy)
    for path, text in changed.items():
        (copy / path).write_text(text)
    for path in removal.paths:
        (copy / path).unlink()
    if found := [*references(removal, copy)]:
        raise SetupError(
            "\n".join([*found, f"These lines need {removal.about}. Change them first; nothing was changed."])
        )
    _tidy(copy, [path for path in changed if path.endswith(".py")])
    _run(copy, sys.executable, "-c", "import app.main, app.cli")
    _run(copy, sys.executable, "-m", "tools.migration", "remove", name)
    _run(copy, sys.executable, "-m", "tools.openapi", "--record")
    return [*sorted(changed), *sorted(_revisions(copy) - before), "openapi.json"]


def _committed(root: Path) -> list[str]:
    """The files of the project. Raises SetupError unless git can undo what happens to them."""
    if TEMPLATE_PATHS and (root / TEMPLATE_PATHS[-1]).exists():
        raise SetupError(
            'This is the template, whose own tests need it. Make it your project first: make init NAME="…"'
        )
    try:
        changes = _run(root, "git", "status", "--porcelain", "--", ".")
    except (SetupError, OSError) as error:
        raise SetupError(f"Commit the project with git first, which can undo the removal. {error}") from None
    if changes:
        raise SetupError("There are changes that are not committed. Commit them first: then git can undo the removal.")
    listed = _run(root, "git", "ls-files", "-z").split("\0")
    return [path for path in listed if (root / path).is_file()]  # not submodules, nor links to folders


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
    sentences = [f"{file} does not contain this once: {_line_of(text, texts[file])}" for file, text in lost]
    sentences += [f"{path} does not exist." for path in removal.paths if not (project / path).is_file()]
    if sentences:
        sentences.append("Restore that first; nothing was changed.")
        raise SetupError("\n".join(sentences))
    return texts


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


def carry_out(root: Path, copy: Path, written: Sequence[str], gone: Sequence[str]) -> None:
    """Change the project as the copy was changed; if that fails halfway, undo it."""
    before = {path: (root / path).read_bytes() for path in (*written, *gone) if (root / path).exists()}
    try:
        for path in written:
            (root / path).write_bytes((copy / path).read_bytes())
        for path in gone:
            (root / path).unlink()
    except BaseException:
        for path, content in before.items():
            (root / path).write_bytes(content)
        for path in written:
            if path not in before:
                (root / path).unlink(missing_ok=True)
        raise


def _tidy(project: Path, files: Sequence[str]) -> None:
    """Drop the imports that nothing uses any more, and put blank lines right."""
    ruff = (sys.executable, "-m", "ruff")
    _run(project, *ruff, "check", "--quiet", "--select=F,I", "--fix", *files)
    _run(project, *ruff, "format", "--quiet", *files)


def _revisions(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.glob("migrations/versions/*.py")}


def _run(project: Path, *argv: str) -> str:
    """Run a program on a project, without the settings of this shell. Raises SetupError if it fails."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(argv, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        what = " ".join(argv[1:] if argv[0] == sys.executable else argv)
        raise SetupError(f"Nothing was changed, since `{what}` failed:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    about = "\n".join(f"  {name}: {removal.about}" for name, removal in REMOVALS.items())
    parser = argparse.ArgumentParser(
        prog="app remove",
        description=f"Take a part out of this project, all or nothing.\n\n{about}",
        epilog="Example: app remove example --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*REMOVALS], help="what to take out")
    parser.add_argument("--dry-run", action="store_true", help="list the files that would change, and change nothing")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
