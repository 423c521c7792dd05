"""Which requests are logged, and what development shows of their statements."""

import json
import logging

import pytest
from fastapi import APIRouter
from sqlalchemy import literal, select
from starlette.types import Receive, Scope, Send

from app.dependencies import ReadsDep, SessionDep
from app.main import create_app, middleware
from app.settings import Settings
from plinth.cache import CachedRoutes, Tag, cached_response
from plinth.database import Query
from plinth.http import FastRoute, RequestContextMiddleware
from plinth.telemetry import LogSettings, request_id
from plinth.telemetry.logs import JSONFormatter
from plinth.telemetry.requests import current_record
from plinth.testing.client import serve
from tests.plinth.http.apps import answering, fields, http_scope, messages, recorded

ONE = Query(int, select(literal(1)))


@pytest.fixture
def sampling(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The random numbers that the middleware draws, the last one first."""
    numbers: list[float] = []
    monkeypatch.setattr("plinth.http.access.random", numbers.pop)
    return numbers


async def test_successes_are_sampled(sampling: list[float]) -> None:
    app = RequestContextMiddleware(answering(b"", status=399), log=LogSettings(sample=0.25))
    with recorded() as records:
        for number in (0.0, 0.249, 0.25, 0.99):
            sampling.append(number)
            await messages(app, http_scope(f"/{number}"))
    assert [fields(record)["path"] for record in records] == ["/0.0", "/0.249"]
    assert sampling == []


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.usefixtures("sampling")
async def test_errors_are_always_logged(status: int) -> None:
    with recorded() as records:
        await messages(RequestContextMiddleware(answering(b"", status=status), log=LogSettings(sample=0)), http_scope())
    assert [fields(record)["status"] for record in records] == [status]


@pytest.mark.usefixtures("sampling")
async def test_a_client_that_has_left_is_always_logged() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    with recorded() as records:
        await messages(RequestContextMiddleware(app, log=LogSettings(sample=0)), http_scope())
    assert [fields(record)["status"] for record in records] == [499]


@pytest.mark.parametrize(("seconds", "logged"), [(2.1, True), (2.0, False)])
async def test_slow_requests_are_always_logged(
    sampling: list[float], monkeypatch: pytest.MonkeyPatch, seconds: float, logged: bool
) -> None:
    now = 0.0
    monkeypatch.setattr("plinth.http.access.perf_counter", lambda: now)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now
        now += seconds
        await answering(b"")(scope, receive, send)

    sampling.append(0.5)
    with recorded() as records:
        await messages(RequestContextMiddleware(app, log=LogSettings(sample=0, slow_seconds=2.0)), http_scope())
    assert bool(records) is logged


async def test_the_line_is_an_event_with_the_fields_of_the_request() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record = current_record.get()
        assert record is not None
        record.user, record.cache, record.route_template = "user:7", "miss", "/things/{id}"
        record.add_statement("SELECT 1", 0.0025)
        await answering(b"abc")(scope, receive, send)

    with recorded(formatter=JSONFormatter()) as records:
        await messages(RequestContextMiddleware(app), http_scope("/things/5") | {"client": ("192.0.2.1", 5)})
    line = json.loads(vars(records[0])["text"])
    expected = {"event": "request", "user": "user:7", "route": "/things/{id}", "path": "/things/5", "cache": "miss"}
    counted = {"queries": 1, "database_ms": 2.5, "bytes_sent": 3, "status": 200, "client": "192.0.2.1"}
    assert line.items() >= (expected | counted).items()


async def ran(*statements: str, debug: bool = True) -> tuple[dict[bytes, bytes], list[logging.LogRecord]]:
    """The headers of a response whose request ran these statements, and what was logged of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record = current_record.get()
        assert record is not None
        record.route_template = "/things"
        for statement in statements:
            record.add_statement(statement, 0.0012)
        await answering(b"")(scope, receive, send)

    with recorded("plinth.http.access") as records:
        start, *_ = await messages(RequestContextMiddleware(app, debug_queries=debug), http_scope())
    return dict(start["headers"]), records


async def test_development_shows_the_statements_of_a_request() -> None:
    headers, records = await ran("SELECT 1", "SELECT 2", "SELECT 1")
    assert headers[b"x-queries"] == b"3 in 3.6 ms"
    assert b"x-repeated-statements" not in headers
    assert records == []


async def test_a_request_within_another_counts_for_both_and_changes_nothing_else() -> None:
    def add(statement: str) -> None:
        record = current_record.get()
        assert record is not None
        record.add_statement(statement, 0.0012)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        add("SELECT 1")
        await answering(b"")(scope, receive, send)

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        id = request_id.get()
        start, _ = await messages(RequestContextMiddleware(inner, debug_queries=True), http_scope())
        assert dict(start["headers"])[b"x-queries"] == b"1 in 1.2 ms"
        assert request_id.get() == id
        add("SELECT 2")
        await answering(b"")(scope, receive, send)

    before = current_record.get(), request_id.get()
    start, _ = await messages(RequestContextMiddleware(outer, debug_queries=True), http_scope())
    assert dict(start["headers"])[b"x-queries"] == b"2 in 2.4 ms"
    assert (current_record.get(), request_id.get()) == before


async def test_development_warns_once_of_a_repeated_statement() -> None:
    headers, records = await ran(*["SELECT 1"] * 4, *["SELECT 2"] * 3)
    assert headers[b"x-repeated-statements"] == b"4"
    [record] = records
    assert (record.levelname, vars(record)["event"]) == ("WARNING", "repeated_statement")
    assert fields(record) == {"route": "/things", "times": 4, "statement": "SELECT 1"}


async def test_a_statement_that_ran_three_times_is_repeated() -> None:
    headers, [record] = await ran(*["SELECT 1"] * 3)
    assert headers[b"x-repeated-statements"] == b"3"
    assert fields(record)["times"] == 3


async def test_production_does_not_show_statements(settings: Settings) -> None:
    headers, records = await ran(*["SELECT 1"] * 4, debug=False)
    assert not headers.keys() & {b"x-queries", b"x-repeated-statements"}
    assert records == []
    for env in ("development", "production"):
        own = settings.model_copy(update={"app": settings.app.model_copy(update={"env": env})})
        options = [each.kwargs for each in middleware(own, CachedRoutes()) if "debug_queries" in each.kwargs]
        assert [each["debug_queries"] for each in options] == [env == "development"]


@pytest.fixture
def routes() -> APIRouter:
    """Routes that run one statement for each of five rows."""
    router = APIRouter(prefix="/test", route_class=FastRoute)

    @router.get("/reads")
    async def by_reads(reads: ReadsDep) -> int:
        return sum([await reads.first(ONE) or 0 for _ in range(5)])

    @router.get("/session")
    async def by_session(session: SessionDep) -> int:
        return sum([(await session.scalar(select(literal(number)))) or 0 for number in range(5)])

    @router.get("/cached")
    @cached_response(ttl=60, tags=[Tag("test")])
    async def cached(reads: ReadsDep) -> int:
        return sum([await reads.first(ONE) or 0 for _ in range(5)])

    return router


@pytest.mark.parametrize("path", ["reads", "session", "cached"])
async def test_a_statement_for_each_row_is_found(routes: APIRouter, settings: Settings, path: str) -> None:
    app = create_app(settings)
    app.include_router(routes)
    async with serve(app) as service, service.client() as client:
        with recorded("plinth.http.access") as records:
            answer = await client.get(f"/test/{path}")
        again = await client.get(f"/test/{path}")
    assert answer.headers["X-Repeated-Statements"] == "5"
    assert answer.headers["X-Queries"].startswith("5 in ")
    assert [fields(record)["route"] for record in records] == [f"/test/{path}"]
    assert again.headers["X-Queries"].startswith("0 in " if path == "cached" else "5 in ")
