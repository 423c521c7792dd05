"""`app remove example`, `accounts` or `jobs`: takes a part out that the project can do without (see tools/removals/).

The work is done in a copy first: texts, imports that nothing uses any more, and the migration that drops the tables.
The project is changed only if all of that succeeds. It must have no uncommitted changes, so that git can undo it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.project import TEMPLATE_PATHS
from tools.removals import REMOVALS, Removal, removal_from
from tools.removals.texts import references, taken_out
from tools.revisions import revisions, undoing

ROOT = Path(__file__).resolve().parent.parent
IGNORED = (
    "# The release without this part is deployed first.\n"
    'squawk_ignore = ["ban-drop-column", "ban-drop-function", "ban-drop-table", "require-concurrent-index-deletion"]'
)


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    options = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="remove-") as directory:
            copy = Path(directory, "project")
            removal = removal_from(root, options.name)
            written = prepare(root, copy, removal, options.name)
            gone = removal.paths
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
    if removal.stays:
        print(removal.stays)
    return 0


def prepare(root: Path, copy: Path, removal: Removal, name: str) -> list[str]:
    """Copy the project without the part. Returns the files of the copy that differ, in order; raises SetupError."""
    committed = _committed(root)
    if needed := [
        f"{why}: {path} is there. Nothing was changed."
        for path, why in removal.needed_by.items()
        if (root / path).exists()
    ]:
        raise SetupError("\n".join(needed))
    for path in committed:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, copy / path)
    before = _revisions(copy)
    changed = {path: text for path, text in taken_out(removal, copy).items() if path not in removal.paths}
    for path, text in changed.items():
        (copy / path).write_text(text)
    _delete(copy, removal.paths)
    if found := [*references(removal, copy)]:
        raise SetupError(
            "\n".join([*found, f"These lines need {removal.about}. Change them first; nothing was changed."])
        )
    _tidy(copy, [path for path in changed if path.endswith(".py")])
    _run(copy, sys.executable, "-c", "import app.main, app.cli")
    if removal.creates:
        texts = {path: (copy / path).read_text() for path in before}
        path, text = undoing(removal.creates, revisions(texts), f"remove {name}")
        (copy / path).write_text(text)
    else:
        _run(copy, sys.executable, "-m", "tools.migration", "remove", name)
    for path in _revisions(copy) - before:
        text = (copy / path).read_text()
        (copy / path).write_text(text.replace("depends_on = None\n", f"depends_on = None\n{IGNORED}\n", 1))
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


def carry_out(root: Path, copy: Path, written: Sequence[str], gone: Sequence[str]) -> None:
    """Change the project as the copy was changed; if that fails halfway, undo it."""
    before = {path: (root / path).read_bytes() for path in (*written, *gone) if (root / path).exists()}
    try:
        for path in written:
            (root / path).write_bytes((copy / path).read_bytes())
        _delete(root, gone)
    except BaseException:
        for path, content in before.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        for path in written:
            if path not in before:
                (root / path).unlink(missing_ok=True)
        raise


def _delete(project: Path, paths: Sequence[str]) -> None:
    """Delete the files, and the folders that have nothing else but bytecode afterwards."""
    for path in paths:
        (project / path).unlink()
    for folder in {(project / path).parent for path in paths}:
        if not {each.name for each in folder.iterdir()} - {"__pycache__"}:
            shutil.rmtree(folder)


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
