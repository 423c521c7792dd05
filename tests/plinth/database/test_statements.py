"""The comments of statements, their count for a request, and the log of slow ones."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Integer, bindparam, column, func, insert, literal, select, table

from plinth.database import Database, Query, open_database
from plinth.database.statements import StatementLog
from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.telemetry.requests import RequestRecord, current_record
from plinth.testing.queries import QueryBudget
from plinth.testing.wire import WirePostgres
from tests.plinth.database.tables import Thing

NUMBER = Query(int, select(bindparam("number", type_=Integer)))
LABELS = Query(str, select(Thing.label).where(Thing.label != bindparam("secret"), Thing.id > bindparam("id")))
SLEEP = Query(str, select(func.pg_sleep(bindparam("seconds"))))


@contextmanager
def recording(route: str | None = None, job: str | None = None) -> Iterator[RequestRecord]:
    record = RequestRecord(job=job)
    record.route_template = route
    token = current_record.set(record)
    yield record
    current_record.reset(token)


def changed(settings: Settings, **values: Any) -> Any:
    return settings.database.model_copy(update=values)


async def run_all(database: Database) -> None:
    """A statement of each kind."""
    await database.reads.first(NUMBER, number=1)
    async with database.sessions.begin() as session:
        await session.first(NUMBER, number=2)
    async with database.exports.begin() as export:
        rows = await export.start(select(literal(3).label("number")), "csv", {})
        assert b"".join([chunk async for chunk in rows])


async def sent(settings: Settings, wire: WirePostgres, **values: Any) -> list[str]:
    through = changed(settings, url=wire.through(settings.database.url), direct_url=None, **values)
    async with open_database(through, "commented") as database:
        with wire.counting() as count:
            await run_all(database)
    return [each for each in count.statements if each.startswith(("SELECT $1", "COPY"))]


@pytest.mark.parametrize(
    ("origin", "comment"),
    [
        ({"route": "/api/things/{id}"}, " /*route='/api/things/{id}'*/"),
        ({"route": "/it's/*a*/"}, " /*route='/it%27s/%2Aa%2A/'*/"),
        ({"job": "send mail"}, " /*job='send%20mail'*/"),
        ({}, ""),
    ],
)
async def test_each_statement_says_where_it_comes_from(
    settings: Settings, wire: WirePostgres, origin: dict[str, str], comment: str
) -> None:
    with recording(**origin):
        read, changing, export = await sent(settings, wire)
    assert (read, changing) == (f"SELECT $1::INTEGER AS anon_1{comment}",) * 2
    assert f"{comment}) TO STDOUT" in export


async def test_comments_can_be_switched_off(settings: Settings, wire: WirePostgres) -> None:
    with recording("/api/things"):
        assert not any("/*" in each for each in await sent(settings, wire, statement_comments=False))


async def test_requests_to_one_route_share_a_prepared_statement(settings: Settings, things: None) -> None:
    kept = (
        select(func.count()).select_from(table("pg_prepared_statements")).where(column("statement").like("SELECT $1%"))
    )
    async with open_database(changed(settings, read_pool_size=1), "prepared") as database:
        for route in ("/a", "/b"):
            for number in range(3):
                with recording(route):
                    assert await database.reads.first(NUMBER, number=number) == number
        assert await database.reads.first(Query(int, kept)) == 2


async def test_statements_are_counted_for_their_request_without_the_comment(
    database: Database, query_budget: QueryBudget
) -> None:
    with query_budget(3) as record:
        record.route_template = "/api/things"
        await run_all(database)
    assert record.queries == 3
    assert record.database_seconds > 0
    assert record.statements is not None
    assert record.statements["SELECT $1::INTEGER AS anon_1"] == 2
    assert not any("/*" in each for each in record.statements)


async def test_the_rows_of_one_insert_are_one_statement(database: Database, query_budget: QueryBudget) -> None:
    rows = [{"label": str(number)} for number in range(3000)]
    with query_budget(10) as record:
        async with database.sessions.begin() as session:
            await session.scalars(insert(Thing).returning(Thing.id), rows)
    assert record.statements is not None
    assert record.queries > 1
    assert max(record.statements.values()) == 1


def slow_fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [each for each in caplog.records if vars(each).get("event") == "slow_statement"]
    return [dict(each.args) for each in records if isinstance(each.args, dict)]


async def test_a_slow_statement_is_logged_with_types_and_without_values(
    settings: Settings, things: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_database(changed(settings, slow_statement_seconds=1e-9), "slow") as database:
        with recording("/api/things"):
            await database.reads.all(LABELS, secret="hunter2", id=7)
            async with database.sessions.begin() as session:
                await session.all(LABELS, secret="hunter2", id=7)
                await session.execute(insert(Thing), [{"label": "hunter2"}, {"label": "hunter3"}])
            async with database.exports.begin() as export:
                await export.start(LABELS.statement, "ndjson", {"secret": "hunter2", "id": 7})
        with recording(job="import"):
            await database.reads.first(NUMBER, number=1)
    *logged, in_job = slow_fields(caplog)
    assert [each["types"] for each in logged] == ["str, int", "str, int", "str", "str, int"]
    assert {each["route"] for each in logged} == {"/api/things"}
    assert all(each["seconds"] > 0 and "/*" not in each["statement"] for each in logged)
    assert (in_job["job"], in_job["types"]) == ("import", "int")
    assert "hunter" not in caplog.text


async def test_of_many_parameters_twenty_types_are_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    log = StatementLog(changed(settings, slow_statement_seconds=0.5))
    for count in (20, 21):
        log.add("SELECT 1", 1.0, [0] * count)
    assert [each["types"] for each in slow_fields(caplog)] == [", ".join(["int"] * 20), ", ".join(["int"] * 20 + ["…"])]


async def test_a_change_that_runs_into_its_timeout_is_logged(
    settings: Settings, things: None, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = changed(settings, statement_timeout_seconds=0.05, slow_statement_seconds=0.04)
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError):
            async with database.sessions.begin() as session:
                await session.first(SLEEP, seconds=30)
    assert [each["statement"] for each in slow_fields(caplog)] == ["SELECT pg_sleep($1) AS pg_sleep_1"]


async def plan_of(caplog: pytest.LogCaptureFixture, statement: str) -> str:
    """The plan that is logged in the background, for the same route as the statement."""
    async with asyncio.timeout(30):
        while True:
            for record in caplog.records:
                fields = record.args
                if isinstance(fields, dict) and "plan" in fields and str(fields["statement"]).startswith(statement):
                    assert fields["route"] == "/api/things"
                    return str(fields["plan"])
            await asyncio.sleep(0)


async def test_development_logs_the_plan_of_a_slow_statement_and_does_not_run_it(
    settings: Settings, things: None, onlooker: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    explaining = changed(settings, slow_statement_seconds=1e-9, explain_slow=True)
    async with open_database(explaining, "explaining") as database:
        with recording("/api/things"):
            await database.reads.all(LABELS, secret="hunter2", id=7)
            async with database.sessions.begin() as session:
                await session.execute(insert(Thing).values(label="one"))
        selected = await plan_of(caplog, "SELECT")
        assert " on things" in selected
        assert "$1" in selected  # NULL in its place would have another plan
        assert "Insert on things" in await plan_of(caplog, "INSERT")
    assert await onlooker.fetchval("SELECT count(*) FROM things") == 1
    assert "hunter" not in caplog.text


async def test_production_logs_no_plan(settings: Settings) -> None:
    assert settings.database.explain_slow is False
    explained: list[str] = []
    log = StatementLog(changed(settings, slow_statement_seconds=1e-9), explaining(explained))
    log.add("SELECT 1", 1.0, [])
    await asyncio.sleep(0)
    assert explained == []


def explaining(explained: list[str]) -> Callable[[str, int], Any]:
    async def explain(sql: str, parameters: int) -> list[tuple[str]]:
        explained.append(sql)
        if "bad" in sql:
            raise asyncpg.PostgresSyntaxError("syntax error")
        return [("Result",)]

    return explain


async def test_a_plan_is_logged_once_and_only_of_what_has_one(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    explained: list[str] = []
    log = StatementLog(changed(settings, slow_statement_seconds=0.5, explain_slow=True), explaining(explained))
    caplog.set_level(logging.DEBUG, "plinth.database.statements")
    for sql, seconds in (("SELECT 1", 0.6), ("SELECT 1", 0.7), ("SELECT 2", 0.5), ("SET x = 1", 9), ("SELECT bad", 9)):
        log.add(sql, seconds, [])
    await asyncio.sleep(0)
    await log.close()
    assert explained == ["SELECT 1", "SELECT bad"]
    assert len(slow_fields(caplog)) == 4
    levels = [each.levelname for each in caplog.records if "cannot be explained" in each.getMessage()]
    assert levels == ["DEBUG"]


async def test_a_plan_is_logged_again_after_a_while(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.database.statements.PLAN_SECONDS", 0.0)
    explained: list[str] = []
    log = StatementLog(changed(settings, slow_statement_seconds=0.5, explain_slow=True), explaining(explained))
    for _ in range(2):
        log.add("SELECT 1", 1.0, [])
    await asyncio.sleep(0)
    assert explained == ["SELECT 1"] * 2


async def test_closing_cancels_the_plan_that_is_waited_for(settings: Settings) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def explain(sql: str, parameters: int) -> list[tuple[str]]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    log = StatementLog(changed(settings, slow_statement_seconds=0.5, explain_slow=True), explain)
    log.add("SELECT 1", 1.0, [])
    async with asyncio.timeout(30):
        await started.wait()
        await log.close()
    assert cancelled.is_set()
