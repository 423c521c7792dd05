"""Each promise holds on the driver and through the session, and for both in one transaction."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, TypeAlias, TypeVar
from unittest.mock import Mock

import asyncpg
import pytest
from sqlalchemy import Integer, bindparam, cast, delete, func, insert, inspect, literal, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session

from plinth.database import Change, Database, Query, Transaction, open_database
from plinth.errors import ConflictError, UnavailableError
from plinth.settings import Settings
from plinth.testing.wire import End, WirePostgres
from tests.plinth.database.tables import Thing

Run: TypeAlias = Callable[[Transaction, Any], Awaitable[Sequence[Any]]]

ONE = select(literal(1))
BACKEND = select(func.pg_backend_pid())
BY_ZERO = select(literal(1) / (func.length("") * 1))


async def on_driver(transaction: Transaction, statement: Any) -> Sequence[Any]:
    return await transaction.all(Change(lambda *row: row, statement))


async def by_session(transaction: Transaction, statement: Any) -> Sequence[Any]:
    result: Any = await transaction.session.execute(statement)
    return list(result) if getattr(result, "returns_rows", True) else []


@pytest.fixture(params=[on_driver, by_session], ids=["driver", "session"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


def thing(label: str, **values: Any) -> Any:
    return insert(Thing).values(label=label, **values)


def sleep(seconds: float) -> Any:
    return select(func.pg_sleep(seconds))


async def labels(onlooker: asyncpg.Connection) -> list[str]:
    return [row["label"] for row in await onlooker.fetch("SELECT label FROM things ORDER BY id")]


WireT = TypeVar("WireT", bound=WirePostgres)


class Scissors(WirePostgres):
    """Cuts the connections that say the word next, as a firewall does that forgot them; or is mute."""

    cuts = 0
    word = b"BEGIN"
    mute = False

    def _read(self, client: End, frame: bytes) -> bytes:
        if self.cuts and self.word in frame:
            self.cuts -= 1
            client.transport.abort()
        return b"" if self.mute or client.transport.is_closing() else super()._read(client, frame)


@asynccontextmanager
async def wired(settings: Settings, kind: type[WireT], **changed: Any) -> AsyncIterator[tuple[WireT, Database]]:
    """With one connection for transactions."""
    server = make_url(settings.database.url)
    async with kind(server.host or "", server.port or 5432) as wire:
        changed = {"url": wire.through(settings.database.url), "pool_size": 1, "pool_timeout_seconds": 0.5} | changed
        async with open_database(settings.database.model_copy(update=changed), "wired") as database:
            yield wire, database


async def write(database: Database, run: Run, *statements: Any) -> None:
    async with database.transaction() as transaction:
        for statement in statements:
            await run(transaction, statement)


async def test_returning_commits(database: Database, run: Run, onlooker: asyncpg.Connection) -> None:
    async with database.transaction() as transaction:
        await run(transaction, thing("kept"))
        assert await labels(onlooker) == []
    assert await labels(onlooker) == ["kept"]


async def test_raising_rolls_back(database: Database, run: Run, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(LookupError):
        async with database.transaction() as transaction:
            await run(transaction, thing("lost"))
            raise LookupError
    assert await labels(onlooker) == []


async def test_driver_and_session_share_one_transaction(database: Database, onlooker: asyncpg.Connection) -> None:
    for outcome in (None, LookupError("rolled back")):
        try:
            async with database.transaction() as transaction:
                await on_driver(transaction, thing(f"driver {outcome}"))
                assert len(await by_session(transaction, select(Thing))) == (1 if outcome is None else 4)
                transaction.session.add(told := Thing(label=f"object {outcome}"))
                await transaction.copy_rows("things", ["label"], [(f"copied {outcome}",)])
                if outcome:
                    raise outcome
        except LookupError:
            pass
        assert inspect(told).session is None
        assert told.label.startswith("object")
    assert sorted(await labels(onlooker)) == ["copied None", "driver None", "object None"]


async def test_a_transaction_is_three_round_trips_and_none_if_nothing_is_stated(
    settings: Settings, things: None, run: Run
) -> None:
    async with wired(settings, WirePostgres) as (wire, database):
        await write(database, run, ONE)
        with wire.counting() as count:
            await write(database, run, ONE)
            await write(database, run)
        assert count.round_trips == 3, count.statements


async def test_a_commit_that_fails_raises_and_leaves_nothing(
    database: Database, run: Run, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises(ConflictError, match="This late is already taken"):
        async with database.transaction() as transaction:
            await run(transaction, thing("one", late=1))
            await run(transaction, thing("two", late=1))
            assert await run(transaction, select(Thing.label))  # the statements themselves were accepted
    assert await labels(onlooker) == []


async def test_an_error_that_is_passed_over_does_not_pass_for_a_commit(
    database: Database, run: Run, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises((RuntimeError, InvalidRequestError)):
        async with database.transaction() as transaction:
            transaction.after_commit(lambda: pytest.fail("nothing was committed"))
            await run(transaction, thing("lost"))
            with pytest.raises((asyncpg.PostgresError, DBAPIError)):
                await run(transaction, BY_ZERO)
    assert await labels(onlooker) == []
    await write(database, run, thing("kept"))
    assert await labels(onlooker) == ["kept"]


async def test_a_part_may_fail_by_itself(database: Database, run: Run, onlooker: asyncpg.Connection) -> None:
    async with database.transaction() as transaction:
        await run(transaction, thing("kept"))
        with pytest.raises((DBAPIError, ConflictError)):
            async with transaction.session.begin_nested():
                await run(transaction, thing("lost"))
                await run(transaction, thing("kept"))
        await run(transaction, thing("kept, too"))
    assert await labels(onlooker) == ["kept", "kept, too"]


async def test_a_part_that_never_ends_is_kept(database: Database, onlooker: asyncpg.Connection) -> None:
    async with database.transaction() as transaction:
        await transaction.session.begin_nested()
        transaction.session.add(Thing(label="kept"))
    assert await labels(onlooker) == ["kept"]


async def test_what_the_session_has_given_up_does_not_pass_for_a_commit(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises((RuntimeError, InvalidRequestError)):
        async with database.transaction() as transaction:
            transaction.session.add(Thing(label="lost"))
            await transaction.session.flush()
            await (await transaction.session.connection()).rollback()
    assert await labels(onlooker) == []


async def test_a_lost_connection_is_not_replaced_in_the_middle(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    """SQLAlchemy would open another, on which nothing has begun, and whatever is said there would be committed."""
    with pytest.raises((RuntimeError, InvalidRequestError)):
        async with database.transaction() as transaction:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await by_session(transaction, sleep(30))
            connection = await transaction.session.connection()
            await connection.rollback()
            await by_session(transaction, thing("lost"))
    for _ in range(database.pooled_connections):
        with pytest.raises(LookupError):
            async with database.transaction() as transaction:
                await by_session(transaction, thing("lost later"))
                raise LookupError
    assert await labels(onlooker) == []


async def test_options_of_one_session_are_not_the_next_ones(settings: Settings, things: None) -> None:
    async with wired(settings, WirePostgres) as (_, database):
        for expected in ("elsewhere", "things"):
            with pytest.raises(DBAPIError, match=expected) if expected == "elsewhere" else nullcontext():
                async with database.transaction() as transaction:
                    if expected == "elsewhere":
                        nowhere = {"schema_translate_map": {None: expected}}
                        await transaction.session.connection(execution_options=nowhere)
                    await by_session(transaction, select(Thing))


async def test_nothing_is_gathered_on_a_transaction(
    settings: Settings, things: None, run: Run, onlooker: asyncpg.Connection
) -> None:
    async def fail() -> None:
        raise LookupError

    async with wired(settings, WirePostgres) as (_, database):
        for other in (None, fail()):
            with pytest.raises((RuntimeError, LookupError, InvalidRequestError, asyncpg.InterfaceError)):
                async with database.transaction() as transaction:
                    await asyncio.gather(run(transaction, thing("lost")), other or run(transaction, thing("lost, too")))
        await write(database, run, thing("kept"))  # the only connection is back
    assert await labels(onlooker) == ["kept"]


async def test_nothing_begins_while_it_ends(settings: Settings, things: None, run: Run) -> None:
    async with wired(settings, Scissors) as (wire, database):
        transaction = await database.transaction().__aenter__()
        await run(transaction, ONE)
        wire.mute = True
        ending = asyncio.create_task(transaction.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="async with"):
            await on_driver(transaction, ONE)
        ending.cancel()
        await asyncio.wait([ending])


async def test_what_has_not_been_entered_takes_no_connection(database: Database, run: Run) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await run(database.transaction(), ONE)


async def test_a_transaction_that_could_not_begin_does_not_pass_for_a_commit(settings: Settings, run: Run) -> None:
    nowhere = settings.database.model_copy(update={"url": "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"})
    async with open_database(nowhere, "nowhere") as database:
        with pytest.raises((RuntimeError, InvalidRequestError)):
            async with database.transaction() as transaction:
                transaction.after_commit(lambda: pytest.fail("nothing was committed"))
                with pytest.raises(UnavailableError):
                    await run(transaction, ONE)


async def test_the_session_does_not_decide_when_it_ends(database: Database, onlooker: asyncpg.Connection) -> None:
    async with database.transaction() as transaction:
        transaction.session.add(Thing(label="kept"))
        with pytest.raises(RuntimeError, match="returns"):
            await transaction.session.commit()
        with pytest.raises(RuntimeError, match="Raise"):
            await transaction.session.rollback()
        with pytest.raises(RuntimeError, match="begin_nested"):
            await transaction.session.begin()
        with pytest.raises(RuntimeError, match="ends with"):
            await transaction.session.close()
        with pytest.raises(RuntimeError, match="SET TRANSACTION"):
            await transaction.session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    assert await labels(onlooker) == ["kept"]


async def test_what_comes_too_late_is_refused(database: Database, run: Run) -> None:
    async with database.transaction() as transaction:
        await run(transaction, ONE)
    with pytest.raises(RuntimeError, match="async with"):
        await run(transaction, ONE)


@pytest.mark.parametrize("seconds", [0, 30])
async def test_cancelling_rolls_back_and_returns_the_connection(
    settings: Settings, things: None, run: Run, onlooker: asyncpg.Connection, seconds: float
) -> None:
    one_connection = settings.database.model_copy(update={"pool_size": 1})
    async with open_database(one_connection, "cancelled") as database:
        started = asyncio.Event()

        async def work() -> None:
            async with database.transaction() as transaction:
                await run(transaction, thing("lost"))
                started.set()
                await run(transaction, sleep(seconds))
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await write(database, run, thing("kept"))  # the pool's only connection is back, and holds no lock
    assert await labels(onlooker) == ["kept"]


async def test_after_commit_sees_what_was_committed(database: Database, run: Run, onlooker: asyncpg.Connection) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        seen.append(await labels(onlooker))

    async with database.transaction() as transaction:
        await run(transaction, thing("kept"))
        transaction.after_commit(look)
        assert seen == []
    assert seen == [["kept"]]


async def test_after_commit_is_forgotten_on_rollback(database: Database) -> None:
    called = False

    async def call() -> None:
        nonlocal called
        called = True

    with pytest.raises(LookupError):
        async with database.transaction() as transaction:
            transaction.after_commit(call)
            raise LookupError
    with pytest.raises(ConflictError):
        async with database.transaction() as transaction:
            await on_driver(transaction, thing("one", late=1))
            await on_driver(transaction, thing("two", late=1))
            transaction.after_commit(call)
    assert not called


async def test_after_commit_runs_where_nobody_can_tell(settings: Settings, things: None) -> None:
    """An answer that was cached meanwhile might be out of date."""
    called = asyncio.Event()

    async def call() -> None:
        called.set()

    async with wired(settings, Scissors) as (wire, database):
        wire.cuts, wire.word = 1, b"COMMIT"
        with pytest.raises(UnavailableError):
            async with database.transaction() as transaction:
                await on_driver(transaction, thing("perhaps"))
                transaction.after_commit(call)
        assert called.is_set()
        await write(database, on_driver, ONE)


async def test_after_commit_does_not_run_where_commit_was_not_said(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises(UnavailableError):
        async with database.transaction() as transaction:
            transaction.after_commit(lambda: pytest.fail("nothing was committed"))
            [[backend]] = await on_driver(transaction, BACKEND)
            await end_backend(onlooker, backend)


async def test_a_cancellation_after_the_commit_withholds_nothing(database: Database) -> None:
    waiting, called = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def call() -> None:
        called.set()

    async def work() -> None:
        async with database.transaction() as transaction:
            transaction.after_commit(wait)
            transaction.after_commit(call)

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert called.is_set()


async def test_a_failure_after_the_commit_is_logged_and_stops_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    called = False

    async def fail() -> None:
        raise LookupError("cache away")

    async def call() -> None:
        nonlocal called
        called = True

    async with database.transaction() as transaction:
        transaction.after_commit(fail)
        transaction.after_commit(call)
    assert called
    assert "cache away" in caplog.text


async def test_a_duplicate_is_a_conflict_that_names_the_column(database: Database, run: Run) -> None:
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        await write(database, run, thing("same"), thing("same"))


async def test_an_object_that_is_flushed_at_the_end_is_told_as_well(database: Database) -> None:
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        async with database.transaction() as transaction:
            transaction.session.add_all([Thing(label="same"), Thing(label="same")])


async def test_a_row_that_is_copied_is_told_as_well(database: Database) -> None:
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        async with database.transaction() as transaction:
            await transaction.copy_rows("things", ["label"], [("same",), ("same",)])


async def test_what_the_driver_itself_refuses_is_told_as_well(database: Database) -> None:
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        async with database.transaction() as transaction:
            await (await transaction.connection()).execute("INSERT INTO things (label) VALUES ('same'), ('same')")


async def test_a_reference_to_nothing_is_a_conflict_that_names_the_column(database: Database, run: Run) -> None:
    with pytest.raises(ConflictError, match=r"^This parent_id refers to something that does not exist\.$"):
        await write(database, run, thing("orphan", parent_id=10**6))


async def test_deleting_what_is_referred_to_is_a_conflict(database: Database, run: Run) -> None:
    await write(database, run, thing("parent"), thing("child", parent_id=1))
    with pytest.raises(ConflictError, match="still refers to it"):
        await write(database, run, delete(Thing).where(Thing.id == 1))


async def test_a_serialization_failure_is_a_conflict(database: Database, run: Run) -> None:
    await write(database, run, thing("fought over"))
    change = update(Thing).values(late=cast(func.coalesce(Thing.late, 0), Integer) + 1)
    with pytest.raises(ConflictError, match="at the same time"):
        async with database.transaction() as transaction:
            await (await transaction.connection()).execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await run(transaction, select(Thing.amount))
            await write(database, run, change)
            await run(transaction, change)


async def test_what_another_has_changed_is_a_conflict(database: Database, onlooker: asyncpg.Connection) -> None:
    await write(database, on_driver, thing("fought over"))
    with pytest.raises(ConflictError, match="at the same time"):
        async with database.transaction() as transaction:
            found = await transaction.session.get_one(Thing, 1)
            await onlooker.execute("DELETE FROM things")
            found.label = "late"  # an UPDATE that meets no row is stale to the session


async def test_a_slow_statement_is_ended_and_told(settings: Settings, things: None, run: Run) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="too long"):
            await write(database, run, sleep(30))


async def test_a_silent_server_is_given_up(settings: Settings, things: None, run: Run) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, run, select(func.set_config("statement_timeout", "0", True)), sleep(30))


async def test_a_slow_statement_is_logged(settings: Settings, things: None, caplog: pytest.LogCaptureFixture) -> None:
    strict = settings.database.model_copy(update={"slow_statement_seconds": 1e-9})
    async with open_database(strict, "strict") as database:
        await write(database, on_driver, thing("slow"))
    assert "INSERT INTO things" in caplog.text


async def test_statements_are_logged_for_who_debugs(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    for level, expected in ((logging.INFO, []), (logging.DEBUG, ["INSERT", "SELECT"])):
        with caplog.at_level(level, "plinth.database"):
            await write(database, on_driver, thing(f"at {level}"))
            await database.reads.all(Query(int, select(Thing.id)))
        assert [record.getMessage().split()[0] for record in caplog.records] == expected


async def test_a_timeout_of_something_else_is_not_the_databases(database: Database, run: Run) -> None:
    with pytest.raises(TimeoutError):
        async with database.transaction() as transaction:
            await run(transaction, ONE)
            async with asyncio.timeout(0):
                await asyncio.Event().wait()


async def test_a_bug_in_a_statement_keeps_its_cause(database: Database) -> None:
    with pytest.raises(DBAPIError) as failed:
        await write(database, by_session, BY_ZERO)
    assert failed.value.__cause__ is not failed.value
    with pytest.raises(asyncpg.DivisionByZeroError):
        await write(database, on_driver, BY_ZERO)


async def test_a_full_pool_is_told(settings: Settings, things: None, run: Run) -> None:
    narrow = settings.database.model_copy(update={"pool_size": 1, "pool_timeout_seconds": 0.05})
    async with open_database(narrow, "narrow") as database, database.transaction() as transaction:
        await run(transaction, ONE)
        with pytest.raises(UnavailableError, match="busy"):
            await write(database, run, ONE)


async def test_an_unreachable_server_is_told(settings: Settings, run: Run) -> None:
    nowhere = settings.database.model_copy(update={"url": "postgresql+asyncpg://nobody@127.0.0.1:1/nothing"})
    async with open_database(nowhere, "nowhere") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, run, ONE)


async def test_a_connection_that_died_in_the_pool_is_replaced(
    database: Database, run: Run, onlooker: asyncpg.Connection
) -> None:
    async with database.transaction() as transaction:
        [[dead]] = await run(transaction, BACKEND)
    await end_backend(onlooker, dead)
    async with database.transaction() as transaction:
        assert await run(transaction, BACKEND) != [(dead,)]


async def end_backend(onlooker: asyncpg.Connection, pid: int) -> None:
    """Kill a backend, and return once it is gone and our end has heard of it."""
    assert await onlooker.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await onlooker.fetchval("SELECT 1")


async def test_a_connection_that_turns_out_dead_at_the_beginning_is_replaced_once(
    settings: Settings, things: None, run: Run, onlooker: asyncpg.Connection
) -> None:
    async with wired(settings, Scissors) as (wire, database):
        await write(database, run, thing("before"))
        wire.cuts = 1
        await write(database, run, thing("after"))
        wire.cuts = 2
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, run, thing("lost"))
        await write(database, run, thing("again"))
    assert await labels(onlooker) == ["before", "after", "again"]


async def test_a_session_that_cannot_be_closed_keeps_no_connection(
    settings: Settings, things: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wired(settings, WirePostgres) as (_, database):
        with monkeypatch.context() as patched, pytest.raises(asyncio.CancelledError):
            patched.setattr(Session, "close", Mock(side_effect=asyncio.CancelledError))
            async with database.transaction() as transaction:
                await by_session(transaction, ONE)
                raise LookupError
        await write(database, by_session, ONE)


async def test_a_connection_that_does_not_answer_a_rollback_is_given_up(
    settings: Settings, things: None, run: Run, onlooker: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.database.transaction.ROLLBACK_SECONDS", 0.05)
    async with wired(settings, Scissors) as (wire, database):
        with pytest.raises(LookupError):
            async with asyncio.timeout(5), database.transaction() as transaction:
                await run(transaction, thing("lost"))
                wire.mute = True
                raise LookupError
        wire.mute = False
        await write(database, run, thing("kept"))
    assert await labels(onlooker) == ["kept"]


async def test_a_connection_lost_in_a_transaction_is_told(
    database: Database, run: Run, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        async with database.transaction() as transaction:
            await run(transaction, thing("lost"))
            [[backend]] = await run(transaction, BACKEND)
            await end_backend(onlooker, backend)
            await run(transaction, thing("lost too"))
    await write(database, run, thing("kept"))
    assert await labels(onlooker) == ["kept"]


async def test_a_change_takes_values_by_name(database: Database) -> None:
    rename = Change(
        str, update(Thing).where(Thing.id == bindparam("row_id")).values(label=bindparam("to")).returning(Thing.label)
    )
    async with database.transaction() as transaction:
        await on_driver(transaction, thing("before"))
        assert await transaction.first(rename, row_id=1, to="after") == "after"
        assert await transaction.first(rename, row_id=2, to="nobody") is None
        with pytest.raises(KeyError):
            await transaction.first(rename, row_id=1)
