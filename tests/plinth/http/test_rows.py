"""Rows of JSON, NDJSON and CSV are what Python's parsers of whole documents make of them, in constant memory."""

import csv
import io
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from plinth.errors import AppError
from plinth.http import Rows, row_formats
from plinth.http.row_formats import PARSERS
from tests.plinth.http.apps import build, client

SPACE = st.text(" \t\r\n", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LONG = 40


class Item(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    count: int = 0


def parsed(content: str, kind: str = "application/json") -> list[tuple[int, Any]]:
    return [*PARSERS[kind](io.StringIO(content, newline=""), Item)]


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Arrays with white space between all tokens of the first level, some of them broken."""
    text = ",".join(draw(SPACE) + json.dumps(value) + draw(SPACE) for value in draw(st.lists(VALUES, max_size=5)))
    text = f"{draw(SPACE)}[{text}{draw(SPACE)}]{draw(SPACE)}"
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(["", ",", "]", "[", "}", '"', "1", "\\", "x"])) + text[at + 1 :]
    return text


@given(documents())
@example("[1,]")
@example("[,1]")
@example("[1 2]")
@example("[] []")
@example("[")
@example("")
@example('{"a": 1}')
@example("[NaN, 1e999, -0]")
@example('[{"a": 1, "a": 2}]')
@example("[" + "9" * 5000 + "]")
@example("[" + "[" * 100_000)
@settings(deadline=None)
def test_an_array_is_what_the_parser_makes_of_it(text: str) -> None:
    try:
        expected: Any = json.loads(text)
    except (ValueError, RecursionError):
        expected = None
    if not isinstance(expected, list):
        with pytest.raises(AppError):
            parsed(text)
    else:
        assert repr(parsed(text)) == repr([*enumerate(expected)])  # NaN is not equal to itself


@given(
    st.lists(st.integers(-(2**64), 2**64) | st.text(max_size=8), max_size=30),
    st.lists(st.integers(0, 100), max_size=30),
)
@example(["\U0001f4bb" * 8] * 9, [97] * 9)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_row_may_lie_on_the_border_of_two_parts(
    monkeypatch: pytest.MonkeyPatch, values: list[int | str], gaps: list[int]
) -> None:
    monkeypatch.setattr(row_formats, "_LONGEST_ROW", 98)  # eight characters of two escapes each, in quotes
    spaces = [" " * gap for gap in gaps]
    text = "[" + ",".join(json.dumps(value) + "".join(spaces[at : at + 1]) for at, value in enumerate(values)) + "]"
    assert parsed(text) == [*enumerate(values)]


@pytest.mark.parametrize("kind", PARSERS)
def test_a_row_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(row_formats, "_LONGEST_ROW", LONG)
    ok, long = {"name": "x" * (LONG - 14)}, {"name": "x" * LONG}
    for value, is_refused in ((ok, False), (long, True)):
        if kind == "text/csv":
            content = f'name\nx\n"{value["name"][:-10]}\n12345678"\n'
        elif kind == "application/json":
            content = json.dumps([{"name": "x"}, value])
        else:
            content = "".join(json.dumps(each) + "\n" for each in ({"name": "x"}, value))
        if is_refused:
            with pytest.raises(AppError, match=r"line 3|line 2|Element 1"):
                parsed(content, kind)
        else:
            assert len(parsed(content, kind)) == 2


def test_lines_are_numbered_by_where_a_row_begins() -> None:
    lines = '{"name": "a"}\n\n \r\n{"name": \n5\n{"name": "b"}'
    found = parsed(lines, "application/x-ndjson")
    assert [(number, str(value)) for number, value in found] == [
        (1, "{'name': 'a'}"),
        (4, "The line is not valid JSON."),
        (5, "5"),
        (6, "{'name': 'b'}"),
    ]
    table = 'name,count\r\n"a\r\nb",1\r\n\r\nc\r\nd,2,3\r\n'
    found = parsed(table, "text/csv")
    assert [(number, str(value)) for number, value in found] == [
        (2, "{'name': 'a\\r\\nb', 'count': 1}"),
        (5, "{'name': 'c'}"),
        (6, "The row has more cells than there are columns."),
    ]


@given(st.lists(st.tuples(st.text(min_size=1), st.integers()), max_size=5))
def test_csv_has_the_values_of_json(rows: list[tuple[str, int]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("name", "count"), *rows])
    values = [{"name": name, "count": count} for name, count in rows]
    assert [value for _, value in parsed(text.getvalue(), "text/csv")] == values


@pytest.mark.parametrize(
    ("cell", "value"), [("07", "07"), ("7.5", 7.5), ("true", True), ("x", "x"), (" 7", 7), ("9" * 5000, "9" * 5000)]
)
def test_a_cell_that_is_no_number_is_left_to_the_model(cell: str, value: Any) -> None:
    assert parsed(f"name,count\n5,{cell}\n", "text/csv") == [(2, {"name": "5", "count": value})]


@pytest.mark.parametrize(
    "content", ["name,name\nx,y\n", "name,colour\nx,y\n", "{}", 'name\n"x\n', 'name\n"x"y\n', "name\n" + "x" * 70_000]
)
def test_csv_that_cannot_be_read_is_refused(content: str) -> None:
    with pytest.raises(AppError):
        parsed(content, "text/csv")


@pytest.fixture
def app() -> FastAPI:
    """Its endpoint returns the numbers, values and faults of rows."""
    app = build()

    @app.post("/rows")
    async def read(request: Request, most: int = 1000) -> list[Any]:
        async with Rows.received(request) as rows:
            return [
                (row.number, row.value and row.value.model_dump(), row.faults) async for row in rows.read(Item, most)
            ]

    return app


def headers(kind: str) -> dict[str, str]:
    return {"Content-Type": kind}


async def test_faults_point_into_the_row(app: FastAPI) -> None:
    content = '[{"name": "a", "count": "x"}, {"a~/b": 1}, 5, {"name": "b"}]'
    async with client(app) as http:
        answer = await http.post("/rows", content=content, headers=headers("Application/JSON; charset=utf-8"))
    rows = answer.json()
    assert [(fault["pointer"], fault["detail"]) for row in rows for fault in row[2]] == [
        ("#/0/count", "Input should be a valid integer"),
        ("#/1/name", "Field required"),
        ("#/1/a~0~1b", "Extra inputs are not permitted"),
        ("#/2", "Input should be a valid dictionary or instance of Item"),
    ]
    assert rows[3][:2] == [3, {"name": "b", "count": 0}]


async def test_a_name_as_long_as_a_row_is_not_repeated(app: FastAPI) -> None:
    async with client(app) as http:
        answer = await http.post("/rows", json=[{"name": "x", "y" * 60_000: 1}])
    assert [fault["pointer"] for fault in answer.json()[0][2]] == ["#/0"]


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("text/plain", b"[]", 415),
        ("", b"[]", 415),
        ("application/json", b'[{"name": "\xff"}]', 400),
        ("text/csv", b"name\n\xff\n", 400),
        ("application/x-ndjson", b'{"name": "x"}\n' * 3, 400),
        ("application/json", b'\xef\xbb\xbf[{"name": "x"}]', 200),
        ("text/csv", b"\xef\xbb\xbfname\nx\n", 200),
        ("text/csv", b"", 200),
        ("application/jsonl", b'{"name": "x"}', 200),
    ],
)
async def test_what_cannot_be_read_is_refused_as_a_whole(app: FastAPI, kind: str, content: bytes, status: int) -> None:
    async with client(app) as http:
        answer = await http.post("/rows?most=2", content=content, headers=headers(kind))
    assert answer.status_code == status, answer.text
    if status == 415:
        assert "text/csv" in answer.headers["Accept"]
    if status == 200 and content:
        assert answer.json() == [[answer.json()[0][0], {"name": "x", "count": 0}, []]]


@pytest.mark.parametrize("kind", PARSERS)
async def test_memory_does_not_grow_with_the_number_of_rows(kind: str) -> None:
    name = "x" * 500
    row = {"application/json": f'{{"name": "{name}"}},', "text/csv": f"{name}\n"}.get(kind, f'{{"name": "{name}"}}\n')
    begin, end = {"application/json": ("[", '{"name": ""}]'), "text/csv": ("name\n", "")}.get(kind, ("", ""))
    count = 40_000

    def parts() -> Iterator[bytes]:
        yield begin.encode()
        yield from ((row * 100).encode() for _ in range(count // 100))
        yield end.encode()

    received = iter(parts())

    async def receive() -> dict[str, Any]:
        part = next(received, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    scope = {"type": "http", "headers": [(b"content-type", kind.encode())]}
    tracemalloc.start()
    try:
        async with Rows.received(Request(scope, receive)) as rows:
            read = [1 async for row in rows.read(Item, 100_001) if row.value is not None]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read) in {count, count + 1}
    assert peak < 6_000_000 < count * len(name) / 3


async def test_the_rows_end_where_the_client_does(app: FastAPI) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'[{"name": "x"}, {"na'

    async with client(app) as http:
        answer = await http.post("/rows", content=half(), headers=headers("application/json"))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Element 1 is not valid JSON of at most 65536 characters."
