"""`make update`, between two versions of a template that is like this one."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.tools.support import ROOT, outcome, plain_environment
from tools.answers import read_answers
from tools.init import LABELS
from tools.init import main as init
from tools.update import main

GIT = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
NOT_NEEDED = re.compile(
    r"benchmarks/|tests/|docs/benchmarks|app/(?!main|settings)|plinth/(?!__init__|testing/|errors|http/target|CHANGELOG)"
)
GONE = "plinth/http/target.py"
VERSIONS = "migrations/versions/"
# Of the app, not of plinth.
NEW = ("0040-create_users", "0050-create_product_imports", "0100-create_orders", "0110-create_product_images")
USERS = [f"{VERSIONS}2026_11_29_{name}.py" for name in NEW]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=Change")
    return git(folder, "rev-parse", "HEAD")


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, file
    file.write_text(text.replace(old, new, 1))


class Template:
    """Two versions: the files of this checkout, and what a new version may change in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
        for name in listed.decode().splitlines():
            if (ROOT / name).is_file() and not NOT_NEEDED.match(name):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "docs/old.md").write_text("# Old\n")
        git(folder, "init", "--quiet", "--initial-branch=main")
        ours = tomllib.loads((folder / "ownership.toml").read_text())["revisions"]
        later = {folder / path: (folder / path).read_bytes() for path in (*ours, *USERS)}
        for path in later:
            path.unlink()
        self.without_jobs = commit(folder)
        for path, text in later.items():
            path.write_bytes(text)
        (folder / "app/jobs.py").write_text("JOBS = 1\n")
        self.old = commit(folder)
        (folder / "plinth/new.py").write_text("NEW = 1\n")
        (folder / GONE).unlink()
        (folder / "docs/new.md").write_text("New\n")
        (folder / "docs/old.md").unlink()
        change(folder / "plinth/CHANGELOG.md", "\n## ", "\n## 9.9.0\n\n- Everything is faster,\n  and smaller.\n\n## ")
        change(folder / "Makefile", "-n 3", "-n 4")
        change(folder / ".env.example", "#REDIS_URL=\n", "#BRAND_NEW=1\n")
        (folder / "docker/nginx/nginx.conf").chmod(0o755)
        (folder / "docker/roll.sh").chmod(0o644)
        with (folder / "app/main.py").open("a") as file:
            file.write("# A capability's line.\n")
        (folder / "tools/releases.toml").write_text(f'"9.8.0" = "{self.old}"\n')
        self.new = commit(folder)

    def project(self, folder: Path, version: str = "") -> Path:
        git(folder.parent, "clone", "--quiet", str(self.folder), str(folder))
        git(folder, "checkout", "--quiet", version or self.old)
        options = ["--name=Quokka Desk", "--author=Ada"]
        subprocess.run([sys.executable, "-B", "-m", "tools.init", *options], cwd=folder, env={}, check=True)
        with (folder / ".env").open("a") as file:
            file.write("REDIS_URL=redis://cache\nLEFT_OVER=1\n#NOT_SET=1\nAPP_ENV=production\n")
        commit(folder)
        return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def generated(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template.project(tmp_path_factory.mktemp("generated") / "project")


@pytest.fixture
def project(generated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(generated, tmp_path / "project", symlinks=True))


def update(project: Path, *options: str) -> int:
    return main([f"--project={project}", *options])


def files(project: Path) -> dict[str, tuple[bytes, int]]:
    paths = [path for path in project.rglob("*") if path.is_file() and ".git/" not in f"{path}"]
    return {path.relative_to(project).as_posix(): (path.read_bytes(), path.stat().st_mode) for path in paths}


def test_it_replaces_plinth_merges_what_is_shared_and_changes_nothing_else(
    project: Path, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    change(project / "Makefile", "help: ##", "mine: ## Mine\n\nhelp: ##")
    change(project / "README.md", "Quokka Desk", "Quokka")
    change(project / "docker-compose.yml", "quokka-desk", "quokka")
    (project / "docs/mine.md").write_text("Mine\n")
    (project / "tools/mine.py").write_text("MINE = 1\n")
    commit(project)
    before = files(project)
    assert update(project) == 0
    after = files(project)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    plinth = {"plinth/new.py", "plinth/CHANGELOG.md", GONE, "tools/releases.toml"}
    shared = {"Makefile", ".env.example", "docs/new.md", "docs/old.md", "docker/nginx/nginx.conf", "docker/roll.sh"}
    assert changed == {*plinth, *shared, ".copier-answers.yml"}
    assert not {GONE, "docs/old.md"} & after.keys()
    assert {"-n 4", "mine: ## Mine"} <= {*re.findall("-n 4|mine: ## Mine", (project / "Makefile").read_text())}
    assert [after[f"docker/{name}"][1] & 0o111 for name in ("nginx/nginx.conf", "roll.sh")] == [0o111, 0]
    assert read_answers(project) == {
        "_commit": template.new,
        "_src_path": str(template.folder),
        "author": "Ada",
        "description": "A production-ready FastAPI service.",
        "holder": "Ada",
        "image": "ghcr.io/owner/quokka-desk",
        "name": "Quokka Desk",
    }
    printed = capsys.readouterr().out
    assert "\nChanges in plinth:\n  9.9.0\n  - Everything is faster,\n    and smaller.\n\n" in printed
    assert "\n  BRAND_NEW is new\n  REDIS_URL is gone\n" in printed
    assert re.findall(r"  (\w+) is in \.env", printed) == ["LEFT_OVER", "REDIS_URL"]
    assert "\nMerged:\n  Makefile\n\n" in printed
    assert "  app/main.py\n" in printed
    assert "  +# A capability's line.\n" in printed
    commit(project)
    assert update(project) == 0
    assert files(project) == after
    assert f"This project has 9.9.0 ({template.new[:7]}) already." in capsys.readouterr().out


def test_a_project_from_before_jobs_gains_their_tables(
    template: Template, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = template.project(tmp_path / "project", template.without_jobs)
    mine = project / f"{VERSIONS}2027_01_01_0900-create_invoices.py"
    mine.write_text('revision = "mine"\ndown_revision = "3d6f0a51c9e2"\n')
    commit(project)
    before = files(project)
    names = ["0900-create_jobs", "0900-create_security", "0901-create_idempotency_keys", "0902-create_audit"]
    added = [f"{VERSIONS}2027_01_01_{name}.py" for name in names]
    for options in (["--dry-run"], []):
        assert files(project) == before
        assert update(project, *options) == 0
        printed = capsys.readouterr().out
        assert "\nAdded, for tables of plinth's:\n  {}\n\n".format("\n  ".join(added)) in printed
        version = f"{template.new[:7]} of {template.folder}"
        new = "\n  ".join(["app/jobs.py", *USERS])
        assert f"\nNew files of it, which you may copy; they are in {version}:\n  {new}\n\n" in printed
        assert "\n  `app migrate`, which creates the tables, where the service runs\n" in printed
    after = files(project)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert sorted(path for path in changed if path.startswith(f"{VERSIONS}2")) == added
    assert '\ndown_revision = "mine"\n' in (project / added[0]).read_text()
    assert '\ndown_revision = "7c1e52d0b8a4"\n' in (project / added[1]).read_text()
    assert not (project / "app/jobs.py").exists()

    other = mine.with_name("2027_01_01_0902-create_suppliers.py")
    git(project, "checkout", "--quiet", ".")
    git(project, "clean", "--quiet", "--force")
    other.write_text('revision = "other"\ndown_revision = "3d6f0a51c9e2"\n')
    commit(project)
    before = files(project)
    assert update(project) == 1
    assert capsys.readouterr().err.startswith("migrations/versions/ has several newest revisions, mine and other: ")
    assert files(project) == before


def test_conflicts_are_marked_and_finished_once_they_are_resolved(
    project: Path, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    change(project / "Makefile", "-n 3", "-n 7")
    change(project / "docs/old.md", "#", "# Mine")
    (project / "docs/new.md").write_text("Mine\n")
    shutil.rmtree(project / "docker")
    commit(project)
    assert update(project) == 1
    printed = capsys.readouterr().out
    line = (project / "Makefile").read_text().splitlines().index("<<<<<<< yours") + 1
    assert f"\nConflicts:\n  Makefile: lines {line} to {line + 6}\n  docs/new.md: the new version adds" in printed
    assert "docs/old.md: the new version has no such file" in printed
    assert "They stay deleted:\n  docker/nginx/nginx.conf\n  docker/roll.sh\n" in printed
    assert "make update FINISH=1" in printed
    assert (project / "docs/new.md").read_text() == "Mine\n"
    assert not (project / "docker").exists()
    assert read_answers(project)["_commit"] == template.old

    commit(project)
    assert update(project) == 1
    assert capsys.readouterr().err.startswith("The last update has unresolved conflicts: ")
    assert update(project, "--finish") == 1
    assert f"\nMakefile:{line}:<<<<<<< yours\n" in capsys.readouterr().err
    change(project / "Makefile", "<<<<<<< yours\n", "")
    assert update(project, "--finish") == 1
    text = re.sub(r"(?ms)^\|{7} .*^>{7} new\n", "", (project / "Makefile").read_text())
    (project / "Makefile").write_text(text)
    assert update(project, "--finish") == 0
    answers = read_answers(project)
    assert (answers["_commit"], "_update_to" in answers) == (template.new, False)
    assert "-n 7" in text
    assert update(project, "--finish") == 1
    assert capsys.readouterr().err.endswith("\nThere is no update to finish.\n")


def test_a_dry_run_shows_it_all_and_changes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(project / "Makefile", "-n 3", "-n 7")
    change(project / "plinth/errors.py", "class", "# Mine\nclass")
    before = files(project)
    assert update(project, "--dry-run") == 1
    assert files(project) == before
    printed = capsys.readouterr().out
    assert "\n  Makefile: lines " in printed
    assert "which an update replaces:\nplinth/errors.py\n" in printed
    assert printed.endswith("\nNothing was changed: this was a dry run.\n")


def test_edited_files_of_plinth_are_named_and_replaced_only_on_demand(
    project: Path, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    change(project / "plinth/errors.py", "class", "# Mine\nclass")
    change(project / GONE, "import", "# Mine\nimport")
    (project / "plinth/new.py").write_text("MINE = 1\n")
    commit(project)
    before = files(project)
    assert update(project) == 1
    assert files(project) == before
    error = capsys.readouterr().err
    assert error.startswith(
        f"You edited these files, which an update replaces:\nplinth/errors.py\n{GONE}\nplinth/new.py\n"
    )
    assert update(project, "--overwrite") == 0
    assert (project / "plinth/errors.py").read_bytes() == (template.folder / "plinth/errors.py").read_bytes()
    assert (project / "plinth/new.py").read_text() == "NEW = 1\n"
    assert not (project / GONE).exists()


def test_what_is_not_committed_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "app/mine.py").touch()
    before = files(project)
    assert update(project) == 1
    assert capsys.readouterr().err.endswith("commit or stash them, then run this again:\n?? app/mine.py\n")
    assert files(project) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to=1.0.0"], "has no version '1.0.0': give another one, or another SOURCE=."),
        (["--from=--all"], "has no version '--all'"),
        (["--from=HEAD", "--to=9.8.0"], "is not newer than 9.9.0 ("),
        (["--source=/nowhere"], "failed: fatal: repository '/nowhere' does not exist"),
    ],
)
def test_versions_and_sources_that_there_are_not_are_refused(
    project: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    before = files(project)
    assert update(project, *options) == 1
    assert sentence in capsys.readouterr().err
    assert files(project) == before


def test_a_project_without_a_record_is_updated_by_its_version(
    project: Path, template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".copier-answers.yml").unlink()
    commit(project)
    assert update(project) == 1
    assert capsys.readouterr().err.endswith(
        "run `make update FROM=<version or commit> SOURCE=<address of the template>`.\n"
    )
    assert update(project, "--from=9.8.0", f"--source={template.folder}", "--to=main") == 0
    answers = read_answers(project)
    assert (answers["_commit"], answers["name"]) == (template.new, "Quokka Desk")


def test_make_passes_on_its_variables(project: Path, template: Template) -> None:
    options = ["FROM=9.8.0", f"SOURCE={template.folder}", "TO=main", "DRY_RUN=1"]
    code, printed, error = outcome(
        ["make", "update", *options, f"PYTHON={sys.executable}"], project, plain_environment()
    )
    assert (code, error) == (0, "")
    assert printed.endswith("Nothing was changed: this was a dry run.\n")
    code, _, error = outcome(["make", "update", "FINISH=1", f"PYTHON={sys.executable}"], project, plain_environment())
    assert (code, error.splitlines()[0]) == (2, "There is no update to finish.")


def test_a_renamed_project_keeps_its_version(project: Path, template: Template) -> None:
    ownership = tomllib.loads((project / "ownership.toml").read_text())
    assert ownership.keys() == {"ours", "shared", "yours", "revisions"}
    assert not (project / ".ci").exists()
    assert init(["--name=Cash `Desk`"], project) == 0
    answers = read_answers(project)
    assert (answers["name"], answers["image"]) == ("Cash `Desk`", "ghcr.io/owner/cash-desk")
    assert (answers["_commit"], answers["_src_path"]) == (template.old, str(template.folder))
    assert yaml.safe_load((project / ".copier-answers.yml").read_text()) == answers


def test_without_git_there_is_no_record_unless_it_is_given(project: Path) -> None:
    shutil.rmtree(project / ".git")
    (project / ".copier-answers.yml").unlink()
    assert init(["--name=Cash"], project) == 0
    assert not (project / ".copier-answers.yml").exists()
    assert init(["--name=Cash", "--commit=abc", "--source=gh:owner/plinth"], project) == 0
    answers = read_answers(project)
    assert (answers["_commit"], answers["_src_path"]) == ("abc", "gh:owner/plinth")


def test_a_record_that_cannot_be_read_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".copier-answers.yml").write_text("_commit: abc\n")
    assert update(project) == 1
    assert capsys.readouterr().err.startswith(".copier-answers.yml cannot be read: ")
    assert init(["--name=Cash"], project) == 1


def test_every_release_has_its_entry_in_the_changelog() -> None:
    releases = tomllib.loads((ROOT / "tools/releases.toml").read_text())
    headings = re.findall(r"(?m)^## (\S+)$", (ROOT / "plinth/CHANGELOG.md").read_text())
    assert [*releases] == headings[::-1][: len(releases)]
    assert [each for each in releases.values() if not re.fullmatch("[0-9a-f]{40}", each)] == []


def test_copier_puts_the_questions_of_make_init() -> None:
    settings = yaml.safe_load((ROOT / "copier.yml").read_text())
    assert {name: each["help"].partition(" (")[0] for name, each in settings.items() if name[0] != "_"} == LABELS
    assert [*ROOT.rglob("*.jinja")] == []  # Copier would render it
