"""`make drill-update`: Copier gives what `make init` gives, and a project with a user's edits survives updates to HEAD.

The project begins as the oldest version of tools/releases.toml, with the edits of edits.patch: a title in README, a
resource, a middleware, settings, a dependency, Compose's variables, a target of make, a page, and a test corrected that
failed in that version as it was. It is updated to HEAD, which must pass all checks and its own tests; and a second one
by way of the version between, which must end the same. A third one, which has lost the example, does not get it back.
A fourth one is of a version without jobs, and gains their tables, and then jobs and accounts.
"""

import filecmp
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from plinth.testing.environment import ROOT
from plinth.testing.servers import running
from tests.tools.drill import make
from tests.tools.drill_jobs import follow, gain_tables, run_a_job
from tools.answers import FILE, read_answers
from tools.merge import Ownership
from tools.scratch import scratch_environment

HERE = Path(__file__).parent
RELEASES: dict[str, str] = tomllib.loads((ROOT / "tools/releases.toml").read_text())
OLDEST, BETWEEN, WITHOUT_JOBS, *_ = RELEASES
OWNERSHIP = Ownership((ROOT / "ownership.toml").read_text())
SUPPLIERS = "06618312f046"  # the revision of edits.patch
NAMES = {"name": "Billing API", "author": "Ada Lovelace"}
GIT = ["git", "-c", "user.name=Ada Lovelace", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
# Both sides add lines below the same one, or the same library: before the version between, and after it.
EARLY = {"docker-compose.yml": 1}
LATE = {".env.example": 1, "pyproject.toml": 1, "requirements/docs.txt": 1, "requirements/runtime.txt": 1}
CONFLICT = re.compile(r"(?ms)^<{7} yours\n(.*?)^\|{7} recorded\n.*?^={7}\n(.*?)^>{7} new\n")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="drill-") as directory:
        template, once, twice = (Path(directory, name) for name in ("template", "once", "twice"))
        run(["git", "clone", "--quiet", "--no-local", str(ROOT), str(template)], Path(directory))
        compare_with_copier(template, Path(directory))
        mine = start(template, once)
        update(template, once, "HEAD", EARLY | LATE, f"FROM={OLDEST}")
        assert_kept(once, mine)
        mine = start(template, twice)
        update(template, twice, BETWEEN, EARLY, f"FROM={OLDEST}")
        update(template, twice, "HEAD", LATE)
        assert_kept(twice, mine)
        assert_same(once, twice)
        make(once, "check")
        make(once, "test-app")
        gain_jobs(template, Path(directory, "jobs"))
        update_without_example(template, Path(directory, "without"))
    return 0


def run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def compare_with_copier(template: Path, directory: Path) -> None:
    print("\nStarting a project by Copier and one by make init ...", flush=True)
    requirements = ["--require-hashes", "-r", str(ROOT / "requirements" / "copier.txt")]
    copier = str(scratch_environment("copier", requirements) / "copier")
    cloned, copied = directory / "cloned", directory / "copied"
    run(["git", "clone", "--quiet", str(template), str(cloned)], directory)
    make(cloned, "init", *(f"{name.upper()}={value}" for name, value in NAMES.items()))
    data = [f"--data={name}={value}" for name, value in NAMES.items()]
    run(
        [copier, "copy", "--trust", "--quiet", "--defaults", "--vcs-ref=HEAD", *data, str(template), str(copied)],
        directory,
    )
    assert_same(cloned, copied)
    refused = subprocess.run(
        [copier, "update", "--trust", "--defaults", "--vcs-ref=HEAD", str(committed(copied))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode, refused.stdout
    assert "Run `make update`" in refused.stderr, refused.stderr


def start(template: Path, project: Path) -> dict[str, bytes]:
    """A project of the oldest version, with a user's edits. Returns the files that are the user's."""
    print(f"\nStarting a project of {OLDEST} and editing it ...", flush=True)
    run(["git", "clone", "--quiet", str(template), str(project)], template)
    run(["git", "checkout", "--quiet", RELEASES[OLDEST]], project)
    make(project, "init", *(f"{name.upper()}={value}" for name, value in NAMES.items()))
    run(["git", "apply", str(HERE / "edits.patch")], project)
    mine = edited(project)
    assert {"app/middleware.py", "app/models/suppliers.py", "README.md", ".env"} <= {*mine}
    return mine | {"docs/on-call.md": (project / "docs/on-call.md").read_bytes()}


def edited(project: Path) -> dict[str, bytes]:
    """Add settings to `.env` and commit. Returns the files that are the user's."""
    with (project / ".env").open("a") as file:
        file.write("BILLING_CURRENCY=USD\nLEGACY_MODE=1\n")
    committed(project)
    mine = [path for path in files(project) if OWNERSHIP.owner(path) == "yours" and path != FILE]
    return {path: (project / path).read_bytes() for path in mine}


def gain_jobs(template: Path, project: Path) -> None:
    """The tables come on top of one of the user's; a worker comes once the printed lines are followed."""
    run(["git", "clone", "--quiet", str(template), str(project)], template)
    run(["git", "checkout", "--quiet", RELEASES[WITHOUT_JOBS]], project)
    make(project, "init", *(f"{name.upper()}={value}" for name, value in NAMES.items()))
    parts = [f"--include={path}" for path in (".env.example", "migrations/*")]
    run(["git", "apply", *parts, str(HERE / "edits.patch")], project)
    mine = edited(project)
    printed = update(template, project, "HEAD", {".env.example": 1}, f"FROM={WITHOUT_JOBS}")
    assert {path for path in mine if (project / path).read_bytes() != mine[path]} == set()
    with running(project / ".data") as servers:
        gain_tables(project, servers, SUPPLIERS)
        follow(printed, template, project)
        run_a_job(project, servers)


def update_without_example(template: Path, project: Path) -> None:
    """Update to a version that changes the example, and what showed it in a shared file."""
    run(["git", "clone", "--quiet", str(template), str(project)], template)
    make(project, "init", *(f"{name.upper()}={value}" for name, value in NAMES.items()))
    (project / ".env.example").write_text((project / ".env.example").read_text() + "#BILLING_CURRENCY=EUR\n")
    committed(project)
    run([sys.executable, "-m", "tools.remove", "example"], project)
    mine = edited(project)
    before = files(project)
    changed = ["app/routers/products.py", "app/example_data.py", "tests/app/test_example_data.py", "plinth/errors.py"]
    for path in changed:
        (template / path).write_text((template / path).read_text() + "\n# Of the next version.\n")
    committed(template)
    update(template, project, "HEAD", {})
    assert files(project) == before
    assert {path for path in mine if (project / path).read_bytes() != mine[path]} == set()
    assert [path for path in changed if (project / path).exists()] == ["plinth/errors.py"]
    assert (project / "plinth/errors.py").read_text().endswith("# Of the next version.\n")
    assert "EXAMPLE_DATA" not in (project / ".env.example").read_text()


def update(template: Path, project: Path, to: str, conflicts: dict[str, int], *options: str) -> str:
    """Update from the template's side, for the oldest versions have no `make update`; keep both sides of conflicts.

    Returns what it printed.
    """
    command = ["make", "update", f"PROJECT={project}", f"SOURCE={template}", f"TO={to}", *options]
    print(f"\n$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    section = done.stdout.partition("\nConflicts:\n")[2].partition("\n\n")[0]
    found = re.findall(r"(?m)^  (.+): lines", section)
    assert {path: found.count(path) for path in found} == conflicts, done.stdout
    assert bool(done.returncode) == bool(conflicts), done.stdout
    assert "LEGACY_MODE is in .env" in done.stdout
    assert "BILLING_CURRENCY is" not in done.stdout
    for path in conflicts:
        text = (project / path).read_text()
        (project / path).write_text(CONFLICT.sub(r"\1\2", text))
    if conflicts:
        run(["make", "update", f"PROJECT={project}", "FINISH=1"], ROOT)
    committed(project)
    wanted = RELEASES.get(to) or run(["git", "rev-parse", "HEAD"], template)
    assert read_answers(project)["_commit"] == wanted
    return done.stdout


def assert_kept(project: Path, mine: dict[str, bytes]) -> None:
    """The user's files are the same bytes, and each line of the user's in a shared one is there."""
    assert {path for path in mine if (project / path).read_bytes() != mine[path]} == set()
    patch = (HERE / "edits.patch").read_text()
    for path, edits in re.findall(r"(?ms)^diff --git a/(\S+) .*?^@@(.*?)(?=^diff --git|\Z)", patch):
        added = re.findall(r"(?m)^\+(.*)", edits)
        assert [line for line in added if line not in (project / path).read_text().splitlines()] == [], path


def assert_same(left: Path, right: Path) -> None:
    paths = files(left) - {".env"}
    assert paths == files(right) - {".env"}
    assert filecmp.cmpfiles(left, right, paths, shallow=False)[1:] == ([], [])
    assert {path for path in paths if os.access(left / path, os.X_OK) != os.access(right / path, os.X_OK)} == set()


def files(project: Path) -> set[str]:
    """What there is, but for git's own."""
    paths = (path.relative_to(project) for path in project.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != ".git" and "__pycache__" not in path.parts}


def committed(project: Path) -> Path:
    if not (project / ".git").exists():
        run([*GIT, "init", "--quiet"], project)
    run([*GIT, "add", "--all"], project)
    run([*GIT, "commit", "--quiet", "--message=Change"], project)
    return project


if __name__ == "__main__":
    sys.exit(main())
