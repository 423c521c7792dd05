"""`make update`: replaces what is plinth's by another version of the template, and merges what is shared.

Nothing of the user's is changed (ownership.toml says what is whose); a table of plinth's comes by a revision on top of
the user's, which is the only file that is added there. No conflict is resolved by taking a side. All
of it is computed first, from the recorded version, the new one and the project; then all is written, or nothing is.
Needs nothing but git and the standard library.
"""

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from plinth.testing.locks import SetupError
from tools.answers import COMMIT, FILE, PENDING, SOURCE, read_answers, write_answers
from tools.merge import MARKS, Ownership, Update, plan
from tools.project import current
from tools.report import CHANGELOG, print_report
from tools.revisions import FOLDER
from tools.trees import Template, Tree, git, read, template, write

ROOT = Path(__file__).resolve().parent.parent
OWNERSHIP = "ownership.toml"


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 0, or 1 after an error or with conflicts to resolve."""
    options = _parse(arguments)
    try:
        return finish(options.project) if options.finish else update(options)
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def update(options: argparse.Namespace) -> int:
    root: Path = options.project
    answers = read_answers(root)
    source, version = options.source or answers.get(SOURCE), options.recorded or answers.get(COMMIT)
    if PENDING in answers:
        raise SetupError("The last update has unresolved conflicts: resolve them, then run `make update FINISH=1`.")
    if not version or not source:
        raise SetupError(
            f"{FILE} does not say which version this project has, and where the template is: "
            "run `make update FROM=<version or commit> SOURCE=<address of the template>`."
        )
    if not options.dry_run:
        _refuse_uncommitted(root)
    print(f"Fetching {source} ...", flush=True)
    with template(source) as origin:
        releases = _releases(origin)
        old, new = origin.commit(version, releases), origin.commit(options.to, releases)
        now, then = (_title(origin, commit, releases) for commit in (old, new))
        if old == new:
            print(f"This project has {now} already.")
            return 0
        if not origin.is_older(old, than=new):
            raise SetupError(f"{then} is not newer than {now}, which this project has.")
        names = {name: value for name, value in answers.items() if not name.startswith("_")} or vars(current(root))
        print(f"Rendering {now} ...", flush=True)
        recorded = origin.render(old, names)
        print(f"Rendering {then} ...", flush=True)
        coming = origin.render(new, names)
    print("Merging ...", flush=True)
    revisions = {path.relative_to(root).as_posix() for path in root.glob(f"{FOLDER}*.py")}
    project = read(root, recorded.keys() | coming.keys() | revisions)
    planned = plan(_ownership(coming), recorded, coming, project)
    if planned.edited and not options.overwrite and not options.dry_run:
        raise SetupError(
            "\n".join([*_edited(planned), "Nothing was changed. `make update OVERWRITE=1` replaces them."])
        )
    if not options.dry_run:
        print("Writing ...", flush=True)
        write(root, planned.changes)
        state = PENDING if planned.conflicts else COMMIT
        write_answers(root, {COMMIT: old} | names | {SOURCE: source, state: new})
    print_report(root, planned, recorded, coming, f"{new[:7]} of {source}")
    if options.dry_run:
        print(*_edited(planned), "Nothing was changed: this was a dry run.", sep="\n")
    return 1 if planned.conflicts else 0


def finish(root: Path) -> int:
    """Record the new version, once no conflict marker is left."""
    answers = read_answers(root)
    if PENDING not in answers:
        raise SetupError("There is no update to finish.")
    patterns = [option for mark in MARKS for option in ("-e", f"^{mark.replace('|', '[|]')}")]
    try:
        left = git(root, "grep", "--untracked", "-I", "-n", *patterns, "--", ".")
    except SetupError:  # git grep fails if it finds nothing
        left = ""
    if left:
        raise SetupError(f"These conflicts are not resolved yet:\n{left}")
    answers[COMMIT] = answers.pop(PENDING)
    write_answers(root, answers)
    print(f"This project has version {answers[COMMIT][:7]} now. Run `make environment`, `make check`, `make test`.")
    return 0


def _refuse_uncommitted(root: Path) -> None:
    if changed := git(root, "status", "--porcelain", "--untracked-files=all", "--", "."):
        raise SetupError(f"These files are not committed; commit or stash them, then run this again:\n{changed}")


def _releases(origin: Template) -> Mapping[str, str]:
    """The commits of the template's releases, by version, as its newest commit lists them."""
    releases: dict[str, str] = tomllib.loads(origin.text("HEAD", "tools/releases.toml"))
    return releases


def _ownership(coming: Tree) -> Ownership:
    """The new version's; a version from before there was one goes by this file's neighbour."""
    file = coming.get(OWNERSHIP)
    return Ownership(file.data.decode() if file else (ROOT / OWNERSHIP).read_text())


def _title(origin: Template, commit: str, releases: Mapping[str, str]) -> str:
    """A version with its number, such as `0.2.0 (1a2b3c4)`: of a release, or what the changelog begins with."""
    headings = [line[3:] for line in origin.text(commit, CHANGELOG).splitlines() if line.startswith("## ")]
    numbers = [number for number, released in releases.items() if released == commit]
    return f"{[*numbers, *headings, 'an unnumbered version'][0]} ({commit[:7]})"


def _edited(planned: Update) -> list[str]:
    return ["You edited these files, which an update replaces:", *planned.edited, ""] if planned.edited else []


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make update", description="Update plinth, and merge what is shared.")
    parser.add_argument("--to", default="HEAD", metavar="VERSION", help="a release, commit, tag or branch")
    parser.add_argument("--from", dest="recorded", metavar="VERSION", help="the version that the project has")
    parser.add_argument("--source", metavar="ADDRESS", help="where the template is cloned from")
    parser.add_argument("--project", type=Path, default=ROOT, help="a project without `make update`")
    parser.add_argument("--dry-run", action="store_true", help="show what would happen")
    parser.add_argument("--overwrite", action="store_true", help="replace files of plinth that were edited")
    parser.add_argument("--finish", action="store_true", help="record the new version after conflicts were resolved")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
