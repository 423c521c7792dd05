"""The promises of a transaction: what has returned is committed, what has raised has left nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from typing import Any, TypeVar

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import Integer, cast, delete, func, insert, literal, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from plinth.database import Database, Query, Session, check_version, open_database
from plinth.errors import ChangedError, ConflictError, InvalidError, OutcomeUnknownError, UnavailableError
from plinth.settings import Settings
from plinth.testing.wire import End, WirePostgres
from tests.plinth.database.tables import Account, Thing

ONE = select(literal(1))
BACKEND = select(func.pg_backend_pid())
BY_ZERO = select(literal(1) / (func.length("") * 1))
LABELS = Query(str, select(Thing.label).order_by(Thing.id))


def thing(label: str, **values: Any) -> Any:
    return insert(Thing).values(label=label, **values)


def sleep(seconds: float) -> Any:
    return select(func.pg_sleep(seconds))


async def labels(onlooker: asyncpg.Connection) -> list[str]:
    return [row["label"] for row in await onlooker.fetch("SELECT label FROM things ORDER BY id")]


async def write(database: Database, *statements: Any) -> None:
    async with database.sessions.begin() as session:
        for statement in statements:
            await session.execute(statement)


async def backend_of(session: Session) -> tuple[asyncpg.Connection, int | None]:
    """Its connection, and the process at its other end, which PgBouncer gives to the transaction."""
    pid = await session.scalar(BACKEND)
    return (await (await session.connection()).get_raw_connection()).driver_connection, pid


async def end_backend(onlooker: asyncpg.Connection, driver: asyncpg.Connection, pid: int | None) -> None:
    """Terminate a backend, and return once the client's end of its connection is closed."""
    closed = asyncio.Event()
    driver.add_termination_listener(lambda _: closed.set())
    assert await onlooker.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await closed.wait()


WireT = TypeVar("WireT", bound=WirePostgres)


class FaultyWire(WirePostgres):
    """Aborts the next `cuts` connections that send `word`, as a firewall does that lost its state; or drops all."""

    cuts = 0
    word = b"COMMIT"
    mute = False

    def _read(self, client: End, frame: bytes) -> bytes:
        if self.cuts and self.word in frame:
            self.cuts -= 1
            client.transport.abort()
        return b"" if self.mute or client.transport.is_closing() else super()._read(client, frame)


@asynccontextmanager
async def wired(settings: Settings, kind: type[WireT], **changed: Any) -> AsyncIterator[tuple[WireT, Database]]:
    """A database with a single connection for transactions."""
    server = make_url(settings.database.url.get_secret_value())
    async with kind(server.host or "", server.port or 5432) as wire:
        changed = {"url": wire.through(settings.database.url), "pool_size": 1, "pool_timeout_seconds": 0.5} | changed
        async with open_database(settings.database.model_copy(update=changed), "wired") as database:
            yield wire, database


async def test_returning_commits(database: Database, onlooker: asyncpg.Connection) -> None:
    async with database.sessions.begin() as session:
        session.add(Thing(label="kept"))
        await session.flush()
        assert await labels(onlooker) == []
    assert await labels(onlooker) == ["kept"]


async def test_raising_rolls_back(database: Database, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(LookupError):
        async with database.sessions.begin() as session:
            await session.execute(thing("lost"))
            raise LookupError
    assert await labels(onlooker) == []


async def test_a_query_sees_what_the_session_has_changed(database: Database) -> None:
    async with database.sessions.begin() as session:
        session.add(Thing(label="added"))
        assert await session.all(LABELS) == ["added"]
        assert await session.first(LABELS) == "added"
        assert await database.reads.first(LABELS) is None


async def test_a_transaction_is_three_round_trips_and_none_without_a_statement(
    settings: Settings, things: None
) -> None:
    async with wired(settings, WirePostgres) as (wire, database):
        await write(database, ONE)
        with wire.counting() as count:
            await write(database, ONE)
            await write(database)
        assert count.round_trips == 3, count.statements


async def test_a_commit_that_fails_raises_and_leaves_nothing(database: Database, onlooker: asyncpg.Connection) -> None:
    with pytest.raises(ConflictError, match="This late is already taken"):
        async with database.sessions.begin() as session:
            session.after_commit(lambda: pytest.fail("nothing was committed"))
            await session.execute(thing("one", late=1))
            await session.execute(thing("two", late=1))
            assert await session.all(LABELS)  # the statements themselves were accepted
    assert await labels(onlooker) == []


async def test_an_error_that_is_caught_does_not_pass_for_a_commit(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    for failing in (BY_ZERO, thing("kept"), text("nonsense")):
        with pytest.raises(RuntimeError, match="Nothing was committed"):
            async with database.sessions.begin() as session:
                session.after_commit(lambda: pytest.fail("nothing was committed"))
                await session.execute(thing("kept"))
                with pytest.raises(DBAPIError):
                    await session.execute(failing)
        assert await labels(onlooker) == []
        await write(database, ONE)  # on the same connection, in a transaction of its own


async def test_a_savepoint_may_fail_by_itself(database: Database, onlooker: asyncpg.Connection) -> None:
    async with database.sessions.begin() as session:
        await session.execute(thing("kept"))
        with pytest.raises(DBAPIError):
            async with session.begin_nested():
                await session.execute(thing("lost"))
                await session.execute(thing("kept"))
        session.add(Thing(label="kept, too"))
    assert await labels(onlooker) == ["kept", "kept, too"]


async def test_nothing_is_committed_on_a_connection_that_replaced_a_lost_one(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    """A statement that is sent on another connection would otherwise be committed without those before it."""
    with pytest.raises((RuntimeError, InvalidRequestError, UnavailableError, DBAPIError)):
        async with database.sessions.begin() as session:
            await session.execute(thing("lost"))
            await end_backend(onlooker, *await backend_of(session))
            with suppress(DBAPIError):
                await session.execute(ONE)
            await session.execute(thing("lost, too"))
    assert await labels(onlooker) == []


async def test_gathering_on_a_session_is_refused_and_loses_no_connection(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    async with wired(settings, WirePostgres) as (_, database):
        with pytest.raises((InvalidRequestError, DBAPIError)):
            async with database.sessions.begin() as session:
                await asyncio.gather(session.execute(thing("lost")), session.execute(thing("lost, too")))
        await write(database, thing("kept"))  # the only connection is back
    assert await labels(onlooker) == ["kept"]


@pytest.mark.parametrize("seconds", [0, 30])
async def test_cancelling_rolls_back_and_returns_the_connection(
    settings: Settings, things: None, onlooker: asyncpg.Connection, seconds: float
) -> None:
    async with wired(settings, WirePostgres) as (_, database):
        started = asyncio.Event()

        async def work() -> None:
            async with database.sessions.begin() as session:
                session.after_commit(lambda: pytest.fail("nothing was committed"))
                await session.execute(thing("lost"))
                started.set()
                await session.execute(sleep(seconds))
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await write(database, thing("kept"))  # the pool's only connection is back, and holds no lock
    assert await labels(onlooker) == ["kept"]


async def test_a_cancellation_at_any_moment_commits_all_or_nothing(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    """Callbacks run where the transaction was committed, and no connection is lost."""
    called: list[str] = []

    async def work(database: Database, name: str) -> None:
        async def note() -> None:
            called.append(name)

        async with database.sessions.begin() as session:
            session.after_commit(note)
            session.add_all([Thing(label=f"{name} a"), Thing(label=f"{name} b")])
            await session.flush()
            await session.all(LABELS)

    async with wired(settings, WirePostgres) as (_, database):
        await work(database, "first")
        for turns, again in product(range(60), (False, True)):
            task = asyncio.create_task(work(database, f"{turns:02}{again}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            if again:  # while the first cancellation rolls back
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
        await write(database, ONE)
    committed = await labels(onlooker)
    names = {label.partition(" ")[0] for label in committed}
    assert len(committed) == 2 * len(names)
    assert names <= set(called)


async def test_callbacks_run_after_the_commit(database: Database, onlooker: asyncpg.Connection) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        seen.append(await labels(onlooker))

    async with database.sessions.begin() as session:
        await session.execute(thing("kept"))
        session.after_commit(look)
        assert seen == []
    assert seen == [["kept"]]


async def test_callbacks_do_not_run_after_a_rollback(database: Database) -> None:
    with pytest.raises(LookupError):
        async with database.sessions.begin() as session:
            session.after_commit(lambda: pytest.fail("it was rolled back"))
            await session.execute(ONE)
            raise LookupError


async def test_callbacks_of_a_rollback_run_after_it_and_not_after_a_commit(
    database: Database, things: None, onlooker: asyncpg.Connection
) -> None:
    seen: list[list[str]] = []

    async def look() -> None:
        seen.append(await labels(onlooker))

    async with database.sessions.begin() as session:
        session.after_rollback(look)
        await session.execute(thing("kept"))
    assert seen == []
    with pytest.raises(LookupError):
        async with database.sessions.begin() as session:
            session.after_rollback(look)
            await session.execute(thing("lost"))
            raise LookupError
    with pytest.raises(LookupError):
        async with database.sessions.begin() as session:
            session.after_rollback(look)
            raise LookupError
    assert seen == [["kept"]] * 2


async def test_what_must_be_certain_does_not_run_where_the_outcome_is_unknown(settings: Settings, things: None) -> None:
    """Neither may what was stored before be deleted, nor what it replaces: a row names one of the two."""
    called: list[str] = []

    async def call(name: str) -> None:
        called.append(name)

    async with wired(settings, FaultyWire) as (wire, database):
        for cuts in (1, 0):
            wire.cuts = cuts
            with suppress(OutcomeUnknownError):
                async with database.sessions.begin() as session:
                    await session.execute(thing(f"perhaps {cuts}"))
                    session.after_rollback(partial(call, f"rolled back {cuts}"))
                    session.after_commit(partial(call, f"perhaps committed {cuts}"))
                    session.after_commit(partial(call, f"committed {cuts}"), certain=True)
    assert called == ["perhaps committed 1", "perhaps committed 0", "committed 0"]


async def test_callbacks_run_where_the_connection_is_lost_during_commit(settings: Settings, things: None) -> None:
    """The transaction may have been committed, and a cached answer may be out of date."""
    called = asyncio.Event()

    async def call() -> None:
        called.set()

    async with wired(settings, FaultyWire) as (wire, database):
        wire.cuts = 1
        with pytest.raises(OutcomeUnknownError, match="may have been stored"):
            async with database.sessions.begin() as session:
                await session.execute(thing("perhaps"))
                session.after_commit(call)
        assert called.is_set()
        await write(database, ONE)


async def test_callbacks_run_where_commit_is_not_answered(settings: Settings, things: None) -> None:
    called = asyncio.Event()

    async def call() -> None:
        called.set()

    async with wired(settings, FaultyWire, statement_timeout_seconds=0.05) as (wire, database):
        with pytest.raises(OutcomeUnknownError, match="may have been stored"):
            async with database.sessions.begin() as session:
                await session.execute(thing("perhaps"))
                session.after_commit(call)
                wire.mute = True
        assert called.is_set()


async def test_callbacks_do_not_run_where_the_connection_was_lost_before_commit(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises(UnavailableError):
        async with database.sessions.begin() as session:
            session.after_commit(lambda: pytest.fail("nothing was committed"))
            await end_backend(onlooker, *await backend_of(session))
            await session.execute(ONE)


async def test_a_cancellation_during_one_callback_does_not_skip_the_others(database: Database) -> None:
    waiting, called = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def call() -> None:
        called.set()

    async def work() -> None:
        async with database.sessions.begin() as session:
            session.after_commit(wait)
            session.after_commit(call)

    task = asyncio.create_task(work())
    await waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert called.is_set()


async def test_a_callback_that_fails_is_logged_and_skips_no_other(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    called = False

    async def fail() -> None:
        raise LookupError("cache away")

    async def call() -> None:
        nonlocal called
        called = True

    async with database.sessions.begin() as session:
        session.after_commit(fail)
        session.after_commit(call)
    assert called
    assert "cache away" in caplog.text


@pytest.mark.parametrize("by", ["statement", "flush", "driver"])
async def test_a_duplicate_is_a_conflict_that_names_the_column(database: Database, by: str) -> None:
    with pytest.raises(ConflictError, match=r"^This label is already taken\.$"):
        async with database.sessions.begin() as session:
            session.add(Thing(label="same"))
            await session.flush()
            if by == "statement":
                await session.execute(thing("same"))
            elif by == "flush":
                session.add(Thing(label="same"))
            else:
                pooled: Any = await (await session.connection()).get_raw_connection()
                await pooled.driver_connection.execute("INSERT INTO things (label) VALUES ('same')")


async def test_a_reference_to_nothing_is_invalid_and_names_the_column(database: Database) -> None:
    with pytest.raises(InvalidError, match=r"^This parent_id refers to something that does not exist\.$") as refused:
        await write(database, thing("orphan", parent_id=10**6))
    assert (refused.value.field, refused.value.value) == ("parent_id", "1000000")


async def test_deleting_what_is_referred_to_is_a_conflict(database: Database) -> None:
    await write(database, thing("parent"), thing("child", parent_id=1))
    with pytest.raises(ConflictError, match="something else refers to it"):
        await write(database, delete(Thing).where(Thing.id == 1))


async def test_a_serialization_failure_is_a_conflict(database: Database) -> None:
    await write(database, thing("contended"))
    change = update(Thing).values(late=cast(func.coalesce(Thing.late, 0), Integer) + 1)
    with pytest.raises(ConflictError, match="at the same time"):
        async with database.sessions.begin() as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            await session.execute(select(Thing.amount))
            await write(database, change)
            await session.execute(change)


async def test_after_a_flush_the_orm_reads_its_version_and_its_defaults(database: Database) -> None:
    async with database.sessions.begin() as session:
        account = Account(name="one")
        session.add(account)
        await session.flush()
        assert (account.id, account.version) == (1, 1)
        created_at = account.updated_at
        account.name = "two"
        await session.flush()
        assert account.version == 2
        assert account.updated_at == created_at  # now() is the time of the transaction
    assert account.name == "two"  # nothing expires with the commit
    async with database.sessions.begin() as session:
        found = await session.get_one(Account, 1)
        found.name = "three"
        await session.flush()
        assert found.version == 3
        assert found.updated_at > created_at


async def test_a_row_that_changed_meanwhile_is_a_conflict(database: Database, onlooker: asyncpg.Connection) -> None:
    await write(database, insert(Account).values(name="contended"))
    with pytest.raises(ConflictError, match="at the same time"):
        async with database.sessions.begin() as session:
            found = await session.get_one(Account, 1)
            await onlooker.execute("UPDATE accounts SET version = 2")
            found.name = "late"


async def test_of_a_hundred_changes_to_one_version_one_succeeds(settings: Settings, database: Database) -> None:
    await write(database, insert(Account).values(name="contended"))
    patient = settings.database.model_copy(update={"pool_timeout_seconds": 60.0})  # each waits for those before it

    async def rename(contended: Database, number: int) -> None:
        async with contended.sessions.begin() as session:
            account = await session.get(Account, 1, with_for_update=True)
            assert account
            check_version(account, [1])
            account.name = f"renamed by {number}"

    async with open_database(patient, "tests") as contended:
        changes = (rename(contended, number) for number in range(100))
        outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert outcomes.count(None) == 1
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert {type(outcome) for outcome in refused} == {ChangedError}
    assert str(refused[0]) == "Account 1 was modified since you read it. Fetch it again and retry."


async def test_a_slow_statement_is_cancelled(settings: Settings, things: None) -> None:
    impatient = settings.database.model_copy(update={"statement_timeout_seconds": 0.05})
    async with open_database(impatient, "impatient") as database:
        with pytest.raises(UnavailableError, match="too long"):
            await write(database, sleep(30))


async def answers_again(database: Database) -> None:
    """Until a ping is answered, nothing is sent to a server that was silent."""
    async with asyncio.timeout(10):
        while True:
            try:
                return database.reads.pulse.check()
            except UnavailableError:
                await asyncio.sleep(0.01)


async def test_a_server_that_does_not_answer_is_given_up(settings: Settings, things: None) -> None:
    async with wired(settings, FaultyWire, statement_timeout_seconds=0.05) as (wire, database):
        await write(database, ONE)
        with pytest.raises(UnavailableError, match="cannot be reached"):
            async with database.sessions.begin() as session:
                await session.execute(ONE)
                wire.mute = True
                await session.execute(ONE)
        wire.mute = False
        await answers_again(database)
        await write(database, ONE)


async def test_a_rollback_that_is_not_answered_is_given_up(
    settings: Settings, things: None, onlooker: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.database.sessions.ROLLBACK_SECONDS", 0.05)
    async with wired(settings, FaultyWire) as (wire, database):
        with pytest.raises(LookupError):
            async with asyncio.timeout(5), database.sessions.begin() as session:
                await session.execute(thing("lost"))
                wire.mute = True
                raise LookupError
        wire.mute = False
        await answers_again(database)
        await write(database, thing("kept"))
    assert await labels(onlooker) == ["kept"]


async def test_a_slow_statement_is_logged(settings: Settings, things: None, caplog: pytest.LogCaptureFixture) -> None:
    strict = settings.database.model_copy(update={"slow_statement_seconds": 1e-9})
    async with open_database(strict, "strict") as database:
        await write(database, thing("slow"))
    assert "INSERT INTO things" in caplog.text


async def test_a_timeout_of_other_code_is_not_the_databases(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.sessions.begin() as session:
            await session.execute(ONE)
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
    with pytest.raises(OSError, match="disk full"):
        async with database.sessions.begin() as session:
            await session.execute(ONE)
            raise OSError("disk full")


async def test_a_mistake_in_a_statement_keeps_its_error(database: Database) -> None:
    with pytest.raises(DBAPIError) as failed:
        await write(database, BY_ZERO)
    assert failed.value.orig is not None


async def test_a_full_pool_is_unavailable(settings: Settings, things: None) -> None:
    narrow = settings.database.model_copy(update={"pool_size": 1, "pool_timeout_seconds": 0.05})
    async with open_database(narrow, "narrow") as database, database.sessions.begin() as session:
        await session.execute(ONE)
        with pytest.raises(UnavailableError, match="busy"):
            await write(database, ONE)


async def test_a_server_that_refuses_connections_is_unavailable(settings: Settings) -> None:
    nowhere = settings.database.model_copy(update={"url": SecretStr("postgresql://nobody@127.0.0.1:1/nothing")})
    async with open_database(nowhere, "nowhere") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, ONE)
    url = make_url(settings.database.url.get_secret_value()).set(database="missing")
    missing = {"url": SecretStr(url.render_as_string(hide_password=False))}
    async with open_database(settings.database.model_copy(update=missing), "missing") as database:
        with pytest.raises(UnavailableError, match="cannot be reached"):
            await write(database, ONE)


async def test_a_connection_that_died_in_the_pool_is_replaced_without_a_ping(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    async with wired(settings, WirePostgres) as (wire, database):
        async with database.sessions.begin() as session:
            driver, dead = await backend_of(session)
        await end_backend(onlooker, driver, dead)
        async with database.sessions.begin() as session:
            assert await session.scalar(BACKEND) != dead
        with wire.counting() as count:
            await write(database, ONE)
        assert count.round_trips <= 4, count.statements  # preparing ONE is one of them


async def test_a_connection_lost_in_a_transaction_is_unavailable(
    database: Database, onlooker: asyncpg.Connection
) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        async with database.sessions.begin() as session:
            await session.execute(thing("lost"))
            await end_backend(onlooker, *await backend_of(session))
            await session.execute(thing("lost too"))
    await write(database, thing("kept"))
    assert await labels(onlooker) == ["kept"]


async def test_options_of_one_session_are_not_those_of_the_next(settings: Settings, things: None) -> None:
    async with wired(settings, WirePostgres) as (_, database):
        with pytest.raises(DBAPIError, match="elsewhere"):
            async with database.sessions.begin() as session:
                await session.connection(execution_options={"schema_translate_map": {None: "elsewhere"}})
                await session.execute(select(Thing))
        async with database.sessions.begin() as session:
            assert isinstance(session, Session)
            await session.execute(select(Thing))
