"""A server that is silent, as behind a broken network: nothing waits for it for long, and nothing is left behind.

No test measures time: a minute, after which the hang would be certain, is the limit of each. What takes long where the
pulse does not work is a statement, which has an hour.
"""

import asyncio
import gc
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import Text, cast, func, insert, literal_column, select, text
from sqlalchemy.engine import make_url

from plinth.database import Database, Query
from plinth.database.pulse import Pulse
from plinth.errors import OutcomeUnknownError, UnavailableError
from plinth.settings import Settings
from tests.plinth.database.silent import HOUR, SilentWire, opened
from tests.plinth.database.tables import Thing

COUNT = Query(int, select(func.count()).select_from(Thing))
SLEEP = Query(str, select(cast(func.pg_sleep(1), Text)))
RUNS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'crowded' AND query LIKE 'SELECT%pg_sleep%'"


@pytest.fixture(autouse=True)
async def hang_limit() -> AsyncIterator[None]:
    async with asyncio.timeout(60) as limit:
        yield
    assert not limit.expired()  # its cancellation may have been turned into another error


Pair: TypeAlias = tuple[SilentWire, Database]


@pytest.fixture
async def silent(settings: Settings, things: None) -> AsyncIterator[Pair]:
    async with opened(settings) as pair:
        yield pair


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0.01)


async def read(database: Database) -> int | None:
    return await database.reads.first(COUNT)


async def write(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing).values(label=str(uuid4())))


async def refused(operation: Callable[[], Awaitable[object]]) -> UnavailableError:
    with pytest.raises(UnavailableError) as raised:
        await operation()
    return raised.value


async def recover(wire: SilentWire, database: Database) -> None:
    """Nothing has to be restarted, and nothing is left behind."""
    wire.silent = False
    pulse = database.reads.pulse
    await until(lambda: not pulse.is_silent and not pulse._operations)
    await asyncio.gather(*(read(database) for _ in range(20)), *(write(database) for _ in range(20)))
    await until(lambda: not pulse._operations)  # one may be a ping
    assert database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert database.reads._callers == 0
    await asyncio.gather(*(read(database) for _ in range(20)))  # as many as the pool has


@pytest.mark.parametrize(
    "case",
    [
        (read, "things", False, UnavailableError),
        (read, "things", True, UnavailableError),
        (write, "BEGIN", False, UnavailableError),
        (write, "INSERT", True, UnavailableError),
        (write, "COMMIT", False, OutcomeUnknownError),
        (write, "COMMIT", True, OutcomeUnknownError),
        (Database.ping, "anon_1", False, UnavailableError),
    ],
)
async def test_what_waits_is_ended_at_whatever_message_the_server_falls_silent(
    silent: Pair,
    onlooker: asyncpg.Connection,
    case: tuple[Callable[..., Awaitable[object]], str, bool, type[UnavailableError]],
) -> None:
    wire, database = silent
    operation, at, wire.delivers, error = case
    wire.before = at
    assert type(await refused(lambda: operation(database))) is error
    assert wire.silent
    stored = await onlooker.fetchval("SELECT count(*) FROM things")
    assert stored == (at == "COMMIT" and wire.delivers)
    await recover(wire, database)


async def export(database: Database) -> None:
    async with database.exports.begin() as running:
        async for _ in await running.start(select(Thing), "ndjson", {}):
            pass


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """To connect may take an hour: a ping has half a second even so."""
    monkeypatch.setattr("plinth.database.reads.PING_SHARE", 0.5 / HOUR)
    return {"connect_timeout_seconds": HOUR}


@pytest.mark.parametrize("operation", [read, write, export, Database.ping])
async def test_who_is_connecting_is_ended_after_whatever_answer_the_server_falls_silent(
    settings: Settings, things: None, unhurried: dict[str, float], operation: Callable[[Database], Awaitable[object]]
) -> None:
    """Some of the answers are to what is run on a new connection before it is the caller's."""
    for answers in itertools.count():
        async with opened(settings, **unhurried) as (wire, database):
            wire.answers = answers
            with suppress(UnavailableError, asyncpg.PostgresConnectionError):
                await operation(database)
            if not wire.silent:
                break
            await recover(wire, database)
    assert answers > 1


async def test_many_who_are_connecting_are_all_ended(
    settings: Settings, things: None, unhurried: dict[str, float]
) -> None:
    async with opened(settings, **unhurried) as (wire, database):
        wire.silent = True
        operations = [operation(database) for operation in (read, write, Database.ping) for _ in range(30)]
        ends = await asyncio.gather(*operations, return_exceptions=True)
        assert {type(end) for end in ends} == {UnavailableError}
        await recover(wire, database)


@pytest.mark.parametrize(
    ("before", "operation"), [("connecting", read), ("connecting", write), ("connected", read), ("connected", write)]
)
async def test_a_request_that_comes_later_is_refused_and_then_at_once(
    silent: Pair, operation: Callable[..., Awaitable[object]], before: str
) -> None:
    wire, database = silent
    if before == "connected":
        await asyncio.gather(read(database), write(database), database.ping())
    wire.silent = True
    while not database.reads.pulse.is_silent:
        await refused(lambda: operation(database))
    connections = len(wire.dead)
    for each in (read, write, Database.ping):
        # Without a turn of the event loop, so that there was nothing to wait for.
        with pytest.raises(UnavailableError):
            each(database).send(None)
    with pytest.raises(UnavailableError):
        async with database.exports.begin():
            pass
    assert len(wire.dead) == connections
    await recover(wire, database)


async def test_many_at_once_are_all_ended(silent: Pair) -> None:
    wire, database = silent
    await asyncio.gather(*(read(database) for _ in range(20)), *(write(database) for _ in range(20)))
    wire.silent = True
    operations = [*(read(database) for _ in range(100)), *(write(database) for _ in range(100))]
    ends = await asyncio.gather(*operations, return_exceptions=True)
    assert {type(end) for end in ends} == {UnavailableError}
    await recover(wire, database)


async def test_a_transaction_that_idles_is_ended_too(silent: Pair) -> None:
    wire, database = silent

    async def idle() -> None:
        async with database.sessions.begin() as session:
            await session.execute(insert(Thing).values(label="idle"))
            wire.silent = True
            await until(lambda: database.reads.pulse.is_silent)

    assert type(await refused(idle)) is UnavailableError  # its COMMIT was not sent
    await recover(wire, database)


async def test_a_read_that_meets_a_dead_connection_is_repeated(silent: Pair) -> None:
    wire, database = silent
    await read(database)
    wire.silent = True
    await refused(lambda: read(database))
    wire.silent = False
    await until(lambda: not database.reads.pulse.is_silent)
    assert await read(database) == 0


@pytest.mark.parametrize("prepared", [True, False])
async def test_what_is_merely_slow_is_not_ended(settings: Settings, things: None, prepared: bool) -> None:
    """The ping has longer than any machine needs, and is answered long before."""
    async with opened(settings, connect_timeout_seconds=60.0, prepared_statements=prepared) as (_, database):

        async def sleep_in_transaction() -> None:
            async with database.sessions.begin() as session:
                await session.execute(text("SELECT pg_sleep(1)"))
                await asyncio.sleep(1)  # as one that waits for another server
                await session.execute(text("SELECT 1"))

        number = database.reads.pulse.number
        await asyncio.gather(database.reads.all(SLEEP), sleep_in_transaction())
        assert database.reads.pulse.number == number


async def test_without_prepared_statements_a_read_is_ended_as_well(settings: Settings, things: None) -> None:
    async with opened(settings, prepared_statements=False) as (wire, database):
        for at in ("BEGIN", "things", "COMMIT"):
            wire.before = at
            await refused(lambda: read(database))
            await recover(wire, database)


@pytest.mark.parametrize("operation", [read, write])
async def test_who_is_cancelled_meanwhile_leaves_nothing_behind(
    silent: Pair, operation: Callable[..., Awaitable[object]]
) -> None:
    wire, database = silent
    for _ in range(2):
        wire.before = "things"
        tasks = [asyncio.ensure_future(operation(database)) for _ in range(30)]
        await until(lambda: wire.silent)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {asyncio.CancelledError, UnavailableError, int, type(None)}
        await recover(wire, database)


async def test_an_export_is_ended(silent: Pair) -> None:
    wire, database = silent
    rows = select(func.generate_series(1, 1_000_000).label("number"))

    async def export() -> None:
        async with database.exports.begin() as running:
            chunks = await running.start(rows, "ndjson", {})
            wire.silent = True
            async for _ in chunks:
                pass

    with pytest.raises(asyncpg.PostgresConnectionError):
        await export()
    assert database.exports.running == 0
    await recover(wire, database)


async def test_notifications_are_listened_for_again(silent: Pair) -> None:
    wire, database = silent
    watching = database.notifications.watch("topic", HOUR)
    await asyncio.ensure_future(anext(watching))
    await asyncio.ensure_future(anext(watching))  # it has connected
    wire.silent = True
    while not database.reads.pulse.is_silent:
        await refused(lambda: read(database))
    wire.silent = False
    await asyncio.ensure_future(anext(watching))  # it has connected again


async def test_a_server_without_a_connection_to_spare_is_not_silent(
    settings: Settings, things: None, onlooker: asyncpg.Connection
) -> None:
    """53300: what is connected goes on."""
    await onlooker.execute(
        "CREATE ROLE crowded LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES IN SCHEMA public TO crowded"
    )
    server = make_url(settings.database.url.get_secret_value()).set(username="crowded")
    url = SecretStr(server.render_as_string(hide_password=False))
    try:
        async with opened(settings, url=url, connect_timeout_seconds=60.0) as (_, database):
            number = database.reads.pulse.number
            sleeping = asyncio.create_task(database.reads.all(SLEEP))
            while not await onlooker.fetchval(RUNS):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.01)
            await refused(lambda: write(database))
            await refused(database.ping)
            await sleeping
            assert database.reads.pulse.number == number
    finally:
        await onlooker.execute("DROP OWNED BY crowded; DROP ROLE crowded")


class Held:
    """A connection that is in use."""

    ended = False

    def terminate(self) -> None:
        self.ended = True


async def ended(pulse: Pulse, enough: Callable[[], bool]) -> bool:
    held = Held()
    operation = pulse.begin(held)
    await until(lambda: held.ended or enough())
    pulse.end(operation)
    await pulse.close()
    return held.ended


async def test_a_ping_that_waits_while_others_are_answered_is_no_silence() -> None:
    """As behind a pooler all of whose connections are busy."""
    pings = 0

    async def ping() -> None:
        nonlocal pings
        pings += 1
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()

    pulse = Pulse(ping, 0.1)

    def answered() -> bool:
        pulse.answers += 1
        return pings > 2

    assert not await ended(pulse, answered)
    assert await ended(Pulse(ping, 0.1), lambda: False)


async def test_a_ping_whose_own_connection_has_ended_is_no_silence() -> None:
    pings = 0

    async def ping() -> None:
        nonlocal pings
        pings += 1
        if pings % 2:
            raise asyncpg.ConnectionDoesNotExistError

    async def lost() -> None:
        raise asyncpg.ConnectionDoesNotExistError

    assert not await ended(Pulse(ping, 1.0), lambda: pings >= 4)
    assert await ended(Pulse(lost, 1.0), lambda: False)


async def test_a_ping_that_fails_as_it_is_cancelled_is_not_logged_as_forgotten() -> None:
    forgotten: list[str] = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: forgotten.append(repr(context)))

    async def ping() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise UnavailableError("as it is cancelled") from None

    try:
        assert await ended(Pulse(ping, 0.1), lambda: False)
        gc.collect()
        assert not [each for each in forgotten if "as it is cancelled" in each]
    finally:
        loop.set_exception_handler(handler)


async def test_code_that_blocks_the_event_loop_is_no_silence() -> None:
    pings = 0

    async def ping() -> None:
        nonlocal pings
        time.sleep(0.5)  # longer than there is for a ping  # noqa: ASYNC251
        for _ in range(20):
            await asyncio.sleep(0)  # each is a round trip
        pings += 1

    assert not await ended(Pulse(ping, 0.3), lambda: pings > 1)


@pytest.mark.parametrize("block_seconds", [0.01, 0.03, 0.1])
async def test_an_event_loop_that_is_always_busy_is_no_silence(block_seconds: float) -> None:
    """As code that makes the rows of a COPY. To connect takes a dozen round trips, each a turn of the loop."""
    pings = 0

    async def ping() -> None:
        nonlocal pings
        for _ in range(12):
            await asyncio.sleep(0)
        pings += 1

    async def block() -> None:
        while True:
            time.sleep(block_seconds)  # noqa: ASYNC251
            await asyncio.sleep(0)

    busy = asyncio.create_task(block())
    try:
        assert not await ended(Pulse(ping, 5 * block_seconds), lambda: pings > 0)
    finally:
        busy.cancel()


@pytest.mark.parametrize("error", [TimeoutError(), None])
async def test_a_ping_is_repeated_where_the_event_loop_was_busy_and_silence_is_found_when_it_no_longer_is(
    error: Exception | None,
) -> None:
    pings = 0
    held = Held()

    async def ping() -> None:
        nonlocal pings
        pings += 1
        if pings <= 3 or pings == 6:
            time.sleep(1)  # in which the ping times out  # noqa: ASYNC251
        if error is not None:
            raise error
        await asyncio.get_running_loop().create_future()

    pulse = Pulse(ping, 0.3)
    operation = pulse.begin(held)
    await until(lambda: pings == 4 or held.ended)
    assert pings == 4  # it was not taken for silence three times
    await until(lambda: held.ended)
    await until(lambda: pings == 7)
    assert pulse.is_silent  # nor was it taken for an answer later
    pulse.end(operation)
    await pulse.close()


async def test_nothing_is_looked_at_while_nothing_is_in_progress() -> None:
    async def ping() -> None:
        raise AssertionError

    pulse = Pulse(ping, 0.1)
    pulse.end(pulse.begin())
    await until(lambda: pulse._timer is None)
    assert pulse._task is None


async def test_a_connection_that_is_ended_between_two_steps_of_a_statement_is_a_503(
    silent: Pair,
) -> None:
    """asyncpg prepares and then runs it. The table's name is too long, so the answer of the first step begins with a
    NOTICE, by which the connection is ended before the second. If it came alone, the read would be retried."""
    _, database = silent
    query = Query(int, select(literal_column("1")).select_from(text(f"(SELECT 1) AS {'x' * 70}")))

    def end(connection: asyncpg.Connection, _: object) -> None:  # as the pulse does
        database.reads.pulse.lost(database.reads.pulse.number)
        connection.terminate()

    async with database.reads._pool.acquire() as connection:
        driver = connection._con
    driver.add_log_listener(end)
    with pytest.raises(UnavailableError):
        await database.reads.first(query)
    assert await read(database) == 0
