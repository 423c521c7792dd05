"""`app remove`: on a copy of this project, which `make init` has made a project of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from plinth.testing.locks import SetupError
from tests.tools.support import ROOT
from tests.tools.test_init import NAME, files, lines_with, project
from tools import init
from tools.project import TEMPLATE_PATHS
from tools.removals import REMOVALS, removal_from
from tools.removals.accounts import ACCOUNTS
from tools.removals.example import EXAMPLE
from tools.removals.jobs import JOBS
from tools.removals.removal import Removal
from tools.removals.texts import references, taken_out
from tools.remove import carry_out, main

__all__ = ["project"]

FROM_HERE = [removal_from(ROOT, name) for name in REMOVALS]
PLACES = [(removal, place) for removal in FROM_HERE for place in (*(p for p, _ in removal.texts), *removal.elements)]
# What a project may lack then: importing one ends the program.
MODULES = {
    "accounts": ["jwt", "pwdlib", "cryptography", "multipart", "python_multipart"],
    "jobs": ["aiosmtplib", "cronsim", "jinja2"],
}
COMMANDS = {"create-admin": "accounts", "worker": "jobs", "jobs": "jobs"}
BLOCKED = """
import sys
sys.modules.update(dict.fromkeys({modules}))
import app.main, app.cli
from typer.main import get_command
print(*get_command(app.cli.app).commands)
"""
SERVICE = r"app/|tests/app/|docker|Dockerfile|deploy/kubernetes/(base|overlays)|pyproject\.toml|openapi\.json"
LEFT = {
    "accounts": (
        r"(?i)\baccounts?\b|\buser(s|_)|\bpassword|\bjwt|pwdlib|multipart>|api.?key|\blogins?\b|\broles?\b|scopes\b"
        r"|administrator|\btokens?\b|headers_of|anonymous|signed.in|/api/auth|Bearer",
        r"docker|deploy/|Without accounts everyone may|module = |\(scopes\)",
    ),
    "jobs": (
        r"(?i)\bjobs?\b|\bworker(?!s)|plinth_jobs|aiosmtp|\bcronsim>|\bjinja2>",
        r"plinth\.jobs|plinth/jobs|\| jobs|\(jobs\)|uvicorn.worker|module = |kind: Job|migration|nginx"
        r"|healthcheck\.py|one worker does not know|A project without jobs needs"
        r"|^docker/observability/",  # which has panels and alerts for whatever plinth may report
    ),
}
INVOICE = """from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Entity


class Invoice(Entity):
    __tablename__ = "invoices"

    category: Mapped[str]
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
"""


def git(project: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "core.safecrlf=false"]
    return subprocess.check_output(["git", *settings, *arguments], cwd=project, text=True)


def commit(project: Path) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=A change of the user's")


@pytest.fixture
def initialised(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a repository whose data are elsewhere, so that all its files are text."""
    assert init.main(NAME, project) == 0
    git(project, "init", "--quiet", f"--separate-git-dir={tmp_path_factory.mktemp('repository')}")
    commit(project)
    return project


def change(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)


def test_nothing_names_the_example_afterwards(initialised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = files(initialised)
    assert main(["example", "--dry-run"], initialised) == 0
    announced = capsys.readouterr().out
    assert files(initialised) == before
    assert main(["example"], initialised) == 0
    done = capsys.readouterr().out
    kinds = dict(re.findall(r"(?m)^(?:remove|write) +(\S+)()$", done))
    assert kinds.keys() == {line[3:] for line in git(initialised, "status", "--short", "-uall").splitlines()}
    minutes = r"\d{4}-remove_example"
    assert re.sub(minutes, "", announced).splitlines()[:-1] == re.sub(minutes, "", done).splitlines()[:-1]

    named = r"(?i)\bproducts?\b|product_|categor|catalogue|example.data|app seed|\blaptop|/orders\b|order.?line"
    exceptions = ("tools/", "docs/")  # the pages of plinth explain it by the example
    assert [line for line in lines_with(initialised, named) if not line.startswith(exceptions)] == [
        'pyproject.toml:     "models | (example_data) | (tags) | (jobs)",'
    ]
    [revision] = (initialised / "migrations/versions").glob("*-remove_example.py")
    up, _, down = revision.read_text().partition("def downgrade")
    assert up.index('op.drop_table("products")') < up.index('op.drop_table("categories")')
    assert down.index('"categories"') < down.index('"products"')
    for arguments in (["check", "."], ["format", "--check", "."]):
        assert subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=initialised, check=False).returncode == 0

    commit(initialised)
    assert main(["example"], initialised) == 1
    assert "app/models/categories.py does not exist." in capsys.readouterr().err.splitlines()


def test_a_missing_text_is_named(project: Path) -> None:
    for removal, (name, text) in PLACES:
        file = project / name
        whole = file.read_text()
        first = text.strip().partition("\n")[0]
        # What is shared goes before, and may be a part of this text.
        file.write_text(whole.replace(text if text in whole else first, "something_else"))
        with pytest.raises(SetupError) as raised:
            taken_out(removal, project)
        *sentences, last = str(raised.value).splitlines()
        # Another text may contain this one.
        assert f"{name} does not contain this once: {first}" in sentences
        assert last == "Restore that first; nothing was changed."
        file.write_text(whole)
    assert all(taken_out(removal, project) for removal in FROM_HERE)


# Every part before and after every other, but for jobs, which accounts need.
@pytest.mark.parametrize(
    "order", [["example", "accounts", "jobs"], ["accounts", "example", "jobs"], ["accounts", "jobs", "example"]]
)
def test_nothing_names_what_is_gone(initialised: Path, order: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for number, name in enumerate(order):
        assert main([name], initialised) == 0, capsys.readouterr().err
        assert REMOVALS[name].stays in capsys.readouterr().out
        commit(initialised)
        gone = [each for each in order[: number + 1] if each in LEFT]
        assert [line for each in gone for line in left_of(initialised, each)] == []
        assert len([*initialised.glob(f"migrations/versions/*-remove_{name}.py")]) == 1
        code = BLOCKED.format(modules=[module for each in gone for module in MODULES[each]])
        commands = subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=initialised, env={}, check=True, stdout=subprocess.PIPE, text=True
        ).stdout.split()
        assert {"serve", *(each for each in COMMANDS if COMMANDS[each] not in gone)} <= {*commands}
        assert not {*commands} & {each for each in COMMANDS if COMMANDS[each] in gone}
    assert not (initialised / "app/tasks").exists()
    assert not (initialised / "deploy/kubernetes/base/worker").exists()
    config = Config(str(initialised / "alembic.ini"), config_args={"here": str(initialised)})
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1
    for arguments in (["check", "."], ["format", "--check", "."]):
        assert subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=initialised, check=False).returncode == 0


def left_of(project: Path, name: str) -> list[str]:
    """The lines of the service that still name it, but for those that name something else."""
    named, something_else = LEFT[name]
    lines = (line for line in lines_with(project, named) if re.match(SERVICE, line))
    return [line for line in lines if not re.search(something_else, line)]


def test_jobs_stay_while_there_are_accounts(initialised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(initialised)
    capsys.readouterr()
    assert main(["jobs"], initialised) == 1
    assert capsys.readouterr().err == (
        "Accounts send their mails by jobs, so they cannot do without them: app/models/users.py is there. "
        "Nothing was changed.\n"
    )
    assert files(initialised) == before


def test_a_route_of_the_users_for_those_who_signed_in_is_named(
    initialised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (initialised / "app/routers/billing.py").write_text("from app.access import MAY_WRITE, UserDep\n\nprint(UserDep)\n")
    commit(initialised)
    before = files(initialised)
    capsys.readouterr()
    assert main(["accounts"], initialised) == 1
    assert capsys.readouterr().err.splitlines() == [
        "app/routers/billing.py:1: from app.access import MAY_WRITE, UserDep",
        f"These lines need {ACCOUNTS.about}. Change them first; nothing was changed.",
    ]
    assert files(initialised) == before


def test_the_line_that_was_edited_is_named(project: Path) -> None:
    change(project / "app/cli.py", ("open_database(patient, settings.app.name)", "open_database(patient, 'seed')"))
    with pytest.raises(
        SetupError, match=r"app/cli\.py does not contain this once: open_database\(patient, settings\.a"
    ):
        taken_out(removal_from(project, "example"), project)


def test_all_that_is_missing_is_named_at_once_and_nothing_is_changed(
    initialised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(initialised / "app/tags.py", ('Tag("products")', 'Tag("goods")'))
    change(initialised / "docker-compose.override.yml", ("app migrate && app seed", "app migrate"))
    (initialised / "app/example_data.py").unlink()
    commit(initialised)
    before = files(initialised)
    capsys.readouterr()
    assert main(["example"], initialised) == 1
    assert capsys.readouterr().err.splitlines() == [
        'app/tags.py does not contain this once: PRODUCTS = Tag("products")',
        "docker-compose.override.yml does not contain this once: command: [sh, -c, app migrate && app seed]",
        "app/example_data.py does not exist.",
        "Restore that first; nothing was changed.",
    ]
    assert files(initialised) == before


def test_resources_of_the_users_own_stay(project: Path) -> None:
    change(
        project / "app/routers/__init__.py",
        ("    imports,\n", "    imports,\n    invoices,\n"),
        ("    categories.router,\n", "    invoices.router,\n    categories.router,\n"),
    )
    change(project / "app/models/__init__.py", ('"Category",\n', '"Category",\n    "Invoice",\n'))
    change(project / "app/enums.py", ("class Role", 'class Paid(StrEnum):\n    YES = "yes"\n\n\nclass Role'))
    change(project / "app/tags.py", ("PRODUCTS = ", 'INVOICES = Tag("invoices")\nPRODUCTS = '))
    change(
        project / "tests/app/resources.py",
        ("    Resource(\n", '    Resource("/api/invoices", create={}),\n    Resource(\n'),
        ('=laptop"],\n', '=laptop"],\n        "/api/invoices/due": ["/api/invoices/due?on=2026-11-28"],\n'),
    )
    for path, text in taken_out(removal_from(project, "accounts"), project).items():
        (project / path).write_text(text)
    for path in removal_from(project, "accounts").paths:
        (project / path).unlink()
    texts = taken_out(removal_from(project, "example"), project)
    assert "import (\n    health,\n    invoices,\n    jobs,\n)" in texts["app/routers/__init__.py"]
    assert "(\n    invoices.router,\n    jobs.router,\n    health.router,\n)" in texts["app/routers/__init__.py"]
    assert '[\n    "Base",\n    "Invoice",\n]' in texts["app/models/__init__.py"]
    assert texts["app/tags.py"].endswith('\nINVOICES = Tag("invoices")\n')
    assert (project / "app/enums.py").read_text().count("class ") == 1
    assert 'Resources(\n    Resource("/api/invoices", create={}),\n    # A GET' in texts["tests/app/resources.py"]
    assert (
        'urls={\n        "/api/invoices/due": ["/api/invoices/due?on=2026-11-28"],\n        "/api/jobs'
        in texts["tests/app/resources.py"]
    )


def test_a_reference_of_the_users_is_named_and_nothing_is_changed(
    initialised: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (initialised / "app/models/invoices.py").write_text(INVOICE)
    (initialised / "tests/app/test_invoices.py").write_text("from tests.app.factories import create_product\n")
    commit(initialised)
    before = files(initialised)
    capsys.readouterr()
    assert main(["example"], initialised) == 1
    assert capsys.readouterr().err.splitlines() == [
        'app/models/invoices.py:11: product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))',
        "tests/app/test_invoices.py:1: from tests.app.factories import create_product",
        f"These lines need {EXAMPLE.about}. Change them first; nothing was changed.",
    ]
    assert files(initialised) == before


@pytest.mark.parametrize(
    ("removal", "line", "refers"),
    [
        (EXAMPLE, "from app.models.products import Product", True),
        (EXAMPLE, "from app.models import Base, Category", True),
        (EXAMPLE, "from app.routers import products", True),
        (EXAMPLE, "import app.services.categories", True),
        (EXAMPLE, "from app import example_data", True),
        (EXAMPLE, "async def pay(products: ProductServiceDep) -> None:", True),
        (EXAMPLE, "@cached_response(ttl=1, tags=[tags.INVOICE, tags.PRODUCTS])", True),
        (EXAMPLE, 'product: Mapped["Product"] = relationship(lazy="raise")', True),
        (EXAMPLE, 'product = relationship("Product", lazy="raise")', True),
        (EXAMPLE, '    "SELECT name FROM products WHERE id = 1"', True),
        (EXAMPLE, 'await client.get("/api/products/1")', True),
        (EXAMPLE, "from app.models import Invoice", False),
        (EXAMPLE, "from app.models.product_lines import ProductLine", False),
        (EXAMPLE, "category: Mapped[str]  # a category or a product", False),
        (EXAMPLE, '"""Invoices of products, by category."""', False),
        (EXAMPLE, "tags.PRODUCT_LINES", False),
        (EXAMPLE, 'Resource("/api/product-lines", create={})', False),
        (JOBS, "from app.jobs import PRUNE_JOBS", True),
        (JOBS, "async def pay(jobs: JobsDep) -> None:", True),
        (JOBS, "from app.routers import job_offers", False),
        (ACCOUNTS, "from app.models import Invoice, User", True),
        (ACCOUNTS, "from app.access import PrincipalDep", True),
        (ACCOUNTS, "from app.access import MAY_WRITE", False),
        (ACCOUNTS, 'user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))', True),
        (ACCOUNTS, 'user: Mapped["User"] = relationship(lazy="raise")', True),
        (ACCOUNTS, "from app.enums import InvoiceStatus, Role", True),
        (ACCOUNTS, "from app.enums import InvoiceStatus", False),
        (ACCOUNTS, "async with service.client(headers_of(settings, Role.ADMIN)) as client:", True),
        (ACCOUNTS, 'await client.get("/api/users/me")', True),
        (ACCOUNTS, "from plinth.security import PUBLIC", False),
    ],
)
def test_what_is_a_reference(tmp_path: Path, removal: Removal, line: str, refers: bool) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/own.py").write_text(f"{line}\n")
    assert [*references(removal, tmp_path)] == ([f"app/own.py:1: {line.strip()}"] if refers else [])


def test_what_would_not_start_is_refused(initialised: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(
        initialised / "app/main.py",
        (
            "import DOCS_ROUTERS, ROUTERS",
            "import (\n    DOCS_ROUTERS,\n    ROUTERS,\n    products,\n)\n\nUSED = products",
        ),
    )
    commit(initialised)
    before = files(initialised)
    capsys.readouterr()
    assert main(["example"], initialised) == 1
    assert "ImportError: cannot import name 'products'" in capsys.readouterr().err
    assert files(initialised) == before


def test_what_git_could_not_undo_is_refused(
    initialised: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    (initialised / "app/routers/new.py").touch()
    before = files(initialised)
    capsys.readouterr()
    assert main(["example"], initialised) == 1
    assert capsys.readouterr().err == (
        "There are changes that are not committed. Commit them first: then git can undo the removal.\n"
    )
    assert files(initialised) == before
    assert main(["example"], tmp_path_factory.mktemp("no-repository")) == 1
    refusal = capsys.readouterr().err
    assert refusal.startswith("Commit the project with git first, which can undo the removal. ")
    assert "not a git repository" in refusal


def test_the_template_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (project / TEMPLATE_PATHS[-1]).exists()
    before = files(project)
    assert main(["example"], project) == 1
    assert 'make init NAME="' in capsys.readouterr().err
    assert files(project) == before


@pytest.mark.parametrize("arguments", [[], ["everything"], ["example", "--force"]])
def test_wrong_arguments_are_refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: app remove" in capsys.readouterr().err


def test_help_says_what_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{name}: {removal.about}" in shown for name, removal in REMOVALS.items())


def test_a_failure_halfway_is_undone(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    for folder in (root, copy):
        folder.mkdir()
    (root / "changed").write_text("old")
    (root / "gone").write_text("there")
    (copy / "changed").write_text("new")
    (copy / "added").write_text("new")
    with pytest.raises(FileNotFoundError):
        carry_out(root, copy, ["changed", "added", "missing"], ["gone"])
    with pytest.raises(FileNotFoundError):
        carry_out(root, copy, ["changed", "added"], ["gone", "missing"])
    assert files(root) == {"changed": "old", "gone": "there"}
    carry_out(root, copy, ["changed", "added"], ["gone"])
    assert files(root) == {"changed": "new", "added": "new"}
