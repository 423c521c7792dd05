"""`app new resource`: what it writes is the example with other names and fields, or nothing and one sentence."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plinth.testing.environment import ROOT
from plinth.testing.locks import SetupError
from tools import new
from tools.resource.blocks import BLOCKS, CATEGORIES, Resource
from tools.resource.checks import requested
from tools.resource.fields import KINDS
from tools.resource.layers import files, rewritten, source
from tools.resource.parsing import singular_of
from tools.resource.registered import ALIASES, PROVIDER_IMPORTS, PROVIDERS, ROUND_TRIPS, WHO

EVERYTHING = [
    "number:str(20):unique",
    "note:text=",
    "lines:int=1:index",
    "rate:decimal?:index",
    "total:money:index",
    "paid:bool=false:index",
    "due_on:date:index",
    "sent_at:datetime=2026-01-01T00:00:00Z",
    "token:uuid:unique",
    "status:enum(draft,in-progress)=draft:index",
    "more:json={}",
    "category:ref(categories)",
    "parent:ref:invoices?",
]


def copied(folder: Path) -> Path:
    """What the generator reads."""
    for name in ("app", "migrations", "plinth", "tools", "tests/app"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copied(tmp_path)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no test changes."""
    return copied(tmp_path_factory.mktemp("unchanged"))


def contents(project: Path) -> dict[Path, bytes]:
    ignored = {"__pycache__", ".ruff_cache"}
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and not ignored & {*path.parts}}


def resource(*fields: str) -> Resource:
    return requested("invoices", None, fields)


@pytest.mark.parametrize("layer", BLOCKS)
def test_what_it_carries_is_the_example(layer: str) -> None:
    assert source(layer) == (ROOT / f"app/{layer}/categories.py").read_text(), f"copy it to tools/resource/{layer}.txt"


def test_of_the_fields_of_the_categories_it_makes_the_categories() -> None:
    made = requested("categories", None, ["name:str:unique", "description:text="])
    assert made == CATEGORIES
    for path, text in new.formatted(files(made), ROOT).items():
        expected = ROOT / path if path.startswith("app/") else ROOT / "tools/resource/tests.txt"
        assert text == expected.read_text()


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("app/dependencies.py", PROVIDER_IMPORTS),
        ("app/dependencies.py", ALIASES),
        ("app/tags.py", 'CATEGORIES = Tag("categories")\n'),
        ("app/models/__init__.py", "from app.models.categories import Category\n"),
        ("tests/app/test_round_trips.py", ROUND_TRIPS),
        ("tests/app/test_access.py", WHO),
        *(("app/dependencies.py", provider) for provider in PROVIDERS.split("\n\n\n")),
    ],
)
def test_the_lines_that_it_registers_are_those_of_the_categories(path: str, lines: str) -> None:
    assert {*lines.splitlines()} <= {*(ROOT / path).read_text().splitlines()}


def test_lines_are_registered_where_there_is_nothing_of_the_example(project: Path) -> None:
    emptied = {
        "app/models/__init__.py": 'from app.models.base import Base\n\n__all__ = ["Base"]\n',
        "app/routers/__init__.py": "from app.routers import health\n\nROUTERS = (health.router,)\n",
        "app/tags.py": '"""What cached responses depend on."""\n',
        "tests/app/resources.py": "from plinth.testing.resources import Resources\n\n"
        "RESOURCES = Resources(\n    # A comment.\n    urls={},\n    bodies={},\n)\n",
        "tests/app/test_round_trips.py": 'ROUND_TRIPS = {\n    ("GET", "/health/live"): 0,\n}\n',
        "tests/app/test_access.py": 'WHO = {\n    ("GET", "/health/live"): PUBLIC,\n}\n',
    }
    for path, text in emptied.items():
        (project / path).write_text(text)
    made = new.planned(resource("number:str:unique"), project)
    assert made["app/models/__init__.py"].endswith('import Invoice\n\n__all__ = ["Base", "Invoice"]\n')
    assert made["app/routers/__init__.py"].endswith("health, invoices\n\nROUTERS = (invoices.router, health.router)\n")
    assert made["app/tags.py"].endswith('from plinth.cache import Tag\n\nINVOICES = Tag("invoices")\n')
    assert made["tests/app/resources.py"].startswith("from plinth.testing.resources import Resource, Resources\n")
    assert 'Resource("/api/invoices", create={"number": "Number {n}"}),\n' in made["tests/app/resources.py"]
    assert made["tests/app/test_round_trips.py"].count("/api/invoices") == 6
    assert made["tests/app/test_access.py"].count('/api/invoices"): EDITORS') == 1
    assert made["tests/app/test_access.py"].count("PUBLIC") == 3


@pytest.mark.parametrize(
    "enums",
    [None, '"""The enums of columns."""\n', '"""Enums."""\n\nfrom enum import StrEnum\n\n\nclass A(StrEnum): ...\n'],
)
def test_lines_are_registered_where_there_are_no_accounts(project: Path, enums: str | None) -> None:
    (project / "tests/app/test_access.py").unlink()
    (project / "app/enums.py").unlink()
    if enums is not None:
        (project / "app/enums.py").write_text(enums)
    made = new.planned(resource("status:enum(draft,paid)=draft"), project)
    assert "tests/app/test_access.py" not in made
    assert made["app/enums.py"].startswith((enums or '"""The enums').partition("\n")[0])
    defined: dict[str, Any] = {}
    exec(made["app/enums.py"], defined)
    assert [*defined["InvoiceStatus"]] == ["draft", "paid"]
    assert ("A" in defined) == ("class A" in (enums or ""))
    assert made["app/enums.py"].count("import StrEnum") == 1


def test_a_list_that_was_rewritten_is_said_to_have_no_place(project: Path) -> None:
    (project / "app/routers/__init__.py").write_text("ROUTERS = everything()\n")
    with pytest.raises(SetupError, match=r"app/routers/__init__\.py is not written as it was"):
        new.planned(resource("number:str"), project)


def test_names_have_the_form_of_their_place() -> None:
    lines = requested("order-lines", None, ["count_of:int"])
    assert (lines.plural, lines.singular, lines.class_name, lines.path) == (
        "order_lines",
        "order_line",
        "OrderLine",
        "order-lines",
    )
    made = rewritten(source("routers"), lines)
    assert 'prefix="/api/order-lines", tags=["order-lines"]' in made
    assert "async def create_order_line(\n    data: OrderLineCreate, order_lines: OrderLineServiceDep" in made
    assert '"""Return an order line."""' in made
    assert 'NotFoundError("order line", id)' in rewritten(source("services"), lines)
    assert "tags.ORDER_LINES" in made


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("categories", "category"),
        ("boxes", "box"),
        ("invoices", "invoice"),
        ("addresses", "address"),
        ("branches", "branch"),
        ("statuses", "status"),
        ("houses", "house"),
        ("movies", "movie"),
        ("keys", "key"),
        ("order_lines", "order_line"),
        ("sheep", None),
        ("status", None),
    ],
)
def test_the_singular_is_guessed(plural: str, singular: str | None) -> None:
    assert singular_of(plural) == singular


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("Invoices a:str", "'Invoices' is no name for a resource. Write lower-case words"),
        ("2things a:str", "'2things' is no name"),
        ("classes a:str", "class is no name for a resource, because it is a word of Python"),
        ("users a:str --singular=users", "users needs a singular that differs"),
        ("sheep a:str", "sheep has no singular that could be guessed. Add --singular="),
        ("categories a:str", "app/models/categories.py exists already"),
        ("facets a:str", "app/dependencies.py has FacetReader already"),
        ("sessions a:str", "sessions is no name for a resource, because the code uses session"),
        ("tags a:str", "tags is no name for a resource, because the code uses tags"),
        ("things", "A resource needs a field"),
        ("things a", "The field a has no type. Write a:str, or another of str, text,"),
        ("things a:string", "a is of the unknown type 'string'. The types are str, text,"),
        ("things aB:str", "'aB' is no name for a field"),
        ("things class:str", "class is no name for a field, because it is a word of Python"),
        ("things type:str", "type is no name for a field, because it is a word of Python"),
        ("things order:str", "order is no name for a field, because it is a reserved word of SQL"),
        ("things version:int", "every resource has something of that name"),
        ("things created_at:date", "every resource has something of that name"),
        ("things count:int", "every resource has something of that name"),
        ("things json:json", "every resource has something of that name"),
        ("things date:date", "the code of every resource uses that name"),
        ("things a:str a:int", "There are two fields a."),
        ("things category:ref(categories) category_id:int", "There are two fields category_id."),
        ("things sort:str:index", "Lists cannot have a filter sort"),
        ("things a:int:index min_a:str:index", "Lists cannot have a filter min_a"),
        ("things a:ref(nothings)", "a refers to nothings, which is no resource. Add that one first."),
        ("things a:ref", "a:ref needs a resource: write a:ref(customers)."),
        ("things a:ref(things)", "a refers to its own resource, so it must be optional"),
        ("things a:enum", "a:enum needs two different labels or more"),
        ("things a:enum(x,x)", "a:enum needs two different labels or more"),
        ("things a:enum(x,Y)", "a:enum needs two different labels or more"),
        ("things a:int(5)", "a:int takes nothing in parentheses"),
        ("things a:str(0)", "a:str(0) is no length"),
        ("things a:str:indexed", "a has 'indexed' after its type"),
        ("things a:text:index", "a cannot have an index, because it is a text"),
        ("things a:bool:unique", "a cannot be unique, because it is a bool"),
        ("things a:str:unique:index", "a has an index by being unique"),
        ("things a:str:unique=x", "a cannot have a default, because it is unique"),
        ("things a:ref(categories)=1", "a cannot have a default, because it refers to"),
        *(
            (f"things a:{kind}=!", "a cannot have the default '!'")
            for kind in KINDS
            if kind not in {"str", "text", "ref", "enum"}
        ),
        ("things a:enum(x,y)=z", "a cannot have the default 'z'"),
        ("things a:str=", "a cannot have the default ''"),
        ("things a:int=2147483648", "a cannot have the default '2147483648'"),
        (f"{'things_' * 5}boxes {'a' * 40}:int", "are too long together for PostgreSQL"),
    ],
)
def test_what_cannot_be_is_refused_by_a_sentence(
    unchanged: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    before = contents(unchanged)
    assert new.main(["resource", *arguments.split()], unchanged) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert contents(unchanged) == before


def test_a_type_that_the_project_lacks_is_named(project: Path) -> None:
    types = project / "app/schemas/types.py"
    types.write_text(types.read_text().replace("\nJson = ", "\nJsonObject = "))
    with pytest.raises(SetupError, match=r"app/schemas/types\.py has no Json\."):
        new.planned(resource("more:json"), project)
    new.planned(resource("number:str"), project)


def test_a_dry_run_shows_a_diff_and_writes_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(project)
    assert new.main(["resource", "invoices", *EVERYTHING, "--dry-run"], project) == 0
    diff = capsys.readouterr().out
    assert contents(project) == before
    subprocess.run(["git", "apply", "-"], cwd=project, input=diff, text=True, check=True)
    planned = new.planned(resource(*EVERYTHING), ROOT)
    assert {path: (project / path).read_text() for path in planned} == planned
    assert contents(project).keys() - before.keys() == {
        project / path for path in planned if not (ROOT / path).exists()
    }


def test_nothing_is_left_where_the_migration_fails(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "migrations/versions/2026_11_29_0000-broken.py").write_text("raise ValueError('broken on purpose')\n")
    before = contents(project)
    assert new.main(["resource", "invoices", *EVERYTHING], project) == 1
    assert "Nothing was written: " in (printed := capsys.readouterr().err)
    assert "broken on purpose" in printed
    assert contents(project) == before


def test_a_resource_is_written_with_its_migration(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new.main(["resource", "invoices", *EVERYTHING], project) == 0
    listed = re.findall(r"(?m)^  (\S+)$", capsys.readouterr().out)
    assert all((project / path).is_file() for path in listed)
    (migration,) = (path for path in listed if path.startswith("migrations/"))
    text = (project / migration).read_text()
    assert migration.endswith("-create_invoices.py")
    assert "CREATE TYPE invoice_status AS ENUM ('draft', 'in-progress')" in text
    assert text.count("op.create_index(") == 9
    for tool in (["check", "."], ["format", "--check", "."]):
        subprocess.run([sys.executable, "-m", "ruff", *tool], cwd=project, check=True, capture_output=True)


@st.composite
def field_lists(draw: st.DrawFn) -> list[str]:
    words = st.text("abcdefgh", min_size=1, max_size=8)
    names = draw(st.lists(st.lists(words, min_size=1, max_size=3).map("_".join), min_size=1, max_size=6, unique=True))
    return [draw(fields(name)) for name in names]


def fields(name: str) -> st.SearchStrategy[str]:
    arguments = {"enum": "(b,a-c)", "ref": "(categories)", "str": "(12)"}
    defaults = {"str": 'say "x"', "text": "", "int": "-3", "decimal": "0.5", "money": "9", "bool": "true"}
    defaults |= {"date": "2026-02-03", "datetime": "2026-02-03T04:05:06+07:00", "enum": "a-c", "json": "{}"}
    defaults |= {"uuid": "2C1E6F0A5D434B1E9C573F8A6D2B7E10"}

    def of_kind(kind: str) -> st.SearchStrategy[str]:
        flags = [":unique"] * KINDS[kind].is_unique + [":index"] * KINDS[kind].is_indexed
        endings = ["", *flags, *([f"={defaults[kind]}"] if kind in defaults else [])]
        start = f"{name}:{kind}{arguments.get(kind, '')}"
        return st.builds("{}{}{}".format, st.just(start), st.sampled_from(["", "?"]), st.sampled_from(endings))

    return st.sampled_from([*KINDS]).flatmap(of_kind)


@given(resources=st.lists(field_lists(), min_size=4, max_size=8))
@settings(max_examples=5, deadline=None, suppress_health_check=[*HealthCheck])
def test_whatever_the_fields_the_code_is_clean(resources: list[list[str]], tmp_path: Path) -> None:
    texts: dict[str, str] = {}
    for number, specifications in enumerate(resources):
        try:
            made = requested(f"invoice_{'abcdefgh'[number]}s", None, specifications)
        except SetupError as error:
            assert re.search("a word of|two fields|a filter", str(error)), error  # noqa: PT017
        else:
            texts |= files(made)
    for path, text in new.formatted(texts, ROOT).items():
        ast.parse(text)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for tool in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *tool, "--no-cache", f"--config=lint.isort.{new.OURS}", "."]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
