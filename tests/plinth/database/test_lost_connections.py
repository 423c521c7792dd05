"""No fault of a connection is a 500: a read is repeated once, a change is answered by 503, truthfully.

A proxy breaks the connection before each message that PostgreSQL or the client sends, in each way that a connection is
known to break. A test goes through the messages of an operation until one run meets no fault any more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import product
from typing import Any, Literal
from uuid import uuid4

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import make_url
from starlette.middleware import Middleware

from plinth.database import Database, Query, open_database
from plinth.database.errors import is_connection_lost, is_outcome_unknown, translate
from plinth.database.pulse import Pulse
from plinth.errors import UnavailableError
from plinth.http import UnhandledErrorMiddleware, exception_handlers
from plinth.settings import Settings
from plinth.testing.wire import ENCRYPTION_REQUESTS, UNTAGGED, End, WirePostgres, cut
from tests.plinth.database.silent import HOUR
from tests.plinth.database.tables import Thing

Fault = Literal["reset", "end", "fatal, and later the end", "fatal, and no end yet"]
FAULTS: list[Fault] = ["reset", "end", "fatal, and later the end"]
LATER_SECONDS = 0.01
SIDES = ["server", "client"]
OPERATIONS = ["read", "write", "savepoint", "rollback", "connect", "probe"]
# Administrator, crash, start, idle, transactions that idle or last, a dropped database, PgBouncer.
CODES = ["57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04", "53200", "58000", "08P01", "XX000"]
COUNT = Query(int, select(func.count()).select_from(Thing))


def fatal(code: str = "57P01") -> bytes:
    fields = b"".join(part.encode() + b"\0" for part in ("SFATAL", "VFATAL", f"C{code}", "Mthe connection ends", ""))
    return b"E" + (len(fields) + 4).to_bytes(4) + fields


class BreakingWire(WirePostgres):
    """Breaks the connection on which the next message but `left` of `side` is sent."""

    left: int | None = None
    side = "server"
    fault: Fault = "end"
    code = "57P01"
    pulse: Pulse
    turns: int | None = None
    """The pulse ends all connections so many turns of the event loop after the message, in place of the fault."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.mute: set[End] = set()
        self.ending: asyncio.Task[None] | None = None

    def arm(self, side: str, left: int, fault: Fault) -> None:
        self.side, self.left, self.fault = side, left, fault

    def _received(self, server: End, data: bytes) -> bytes:
        server.stream += data
        passed: list[bytes] = []
        for frame in cut(server.stream, self.end_of_frame):
            if server.peer in self.mute or (self._is_due("server") and self.break_off(server.peer, b"".join(passed))):
                return b""
            passed.append(frame)
        return super()._received(server, b"".join(passed))

    def _read(self, client: End, frame: bytes) -> bytes:
        if client in self.mute or (self._is_due("client") and self.break_off(client)):
            return b""
        return super()._read(client, frame)

    def _is_due(self, side: str) -> bool:
        if side != self.side or self.left is None:
            return False
        self.left = self.left - 1 if self.left else None
        return self.left is None

    def break_off(self, client: End, before: bytes = b"") -> bool:
        """Send the client what came `before`, and nothing after the fault."""
        if self.turns is not None:
            self.ending = asyncio.create_task(self.end_all(self.turns))
            return False
        self.mute.add(client)
        client.transport.write(before)
        if self.fault.startswith("fatal"):
            client.transport.write(fatal(self.code))
        if self.fault == "reset":
            client.transport.abort()
        elif self.fault == "fatal, and later the end":
            asyncio.get_running_loop().call_later(LATER_SECONDS, client.transport.close)
        elif self.fault != "fatal, and no end yet":
            client.transport.close()
        return True

    async def end_all(self, turns: int) -> None:
        """What the pulse does when it finds that the server is silent, which then answers at once."""
        for _ in range(turns):
            await asyncio.sleep(0)
        self.pulse._end_all()
        self.pulse.is_silent = False

    async def break_all(self, onlooker: asyncpg.Connection) -> None:
        """Break every connection, and return once the clients have noticed."""
        for end in list(self._open_ends):
            if end.transport.get_extra_info("sockname")[1] == self.port:  # it is a client's
                self.break_off(end)
        for _ in range(3):
            await onlooker.fetchval("SELECT 1")


def make_app(database: Database) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers, middleware=[Middleware(UnhandledErrorMiddleware)])

    @app.get("/read")
    async def read() -> int | None:
        return await database.reads.first(COUNT)

    @app.get("/probe")
    async def probe() -> None:
        await database.ping()

    @app.post("/write/{label}")
    async def write(label: str) -> None:
        async with database.sessions.begin() as session:
            await session.execute(insert(Thing).values(label=label))

    @app.post("/savepoint/{label}")
    async def savepoint(label: str) -> None:
        async with database.sessions.begin() as session:
            async with session.begin_nested():
                await session.execute(insert(Thing).values(label=label))
            await session.execute(text("SELECT 1"))

    @app.post("/rollback/{label}")
    async def rollback(label: str) -> None:
        async with database.sessions.begin() as session:
            await session.execute(insert(Thing).values(label=label))
            await session.rollback()

    return app


@asynccontextmanager
async def broken(settings: Settings, **changed: Any) -> AsyncIterator[tuple[BreakingWire, AsyncClient]]:
    server = make_url(settings.database.url.get_secret_value())
    async with BreakingWire(server.host or "", server.port or 5432) as wire:
        changed = {"url": wire.through(settings.database.url), "pool_size": 1, "read_pool_size": 1} | changed
        async with open_database(settings.database.model_copy(update=changed), "broken") as database:
            wire.pulse = database.reads.pulse
            transport = ASGITransport(make_app(database))
            async with AsyncClient(transport=transport, base_url="http://test") as client:
                yield wire, client


@pytest.fixture(autouse=True)
def no_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine they would be broken in place of what is tested."""
    monkeypatch.setattr("plinth.database.pulse.LOOK_SECONDS", 3600.0)


@pytest.fixture
async def breaking(settings: Settings, things: None) -> AsyncIterator[tuple[BreakingWire, AsyncClient]]:
    async with broken(settings) as pair:
        yield pair


async def send(client: AsyncClient, operation: str, label: str) -> Response:
    if operation in {"read", "probe"}:
        return await client.get(f"/{operation}")
    return await client.post(f"/{'write' if operation == 'connect' else operation}/{label}")


async def check_truth(answer: Response, operation: str, label: str, onlooker: asyncpg.Connection) -> None:
    """It is 200 or 503, and says of the row what is so."""
    stored = await onlooker.fetchval("SELECT count(*) FROM things WHERE label = $1", label)
    if answer.status_code == 200:
        assert stored == (operation in {"write", "savepoint", "connect"})
    else:
        assert answer.status_code == 503, answer.text
        unknown = answer.json()["type"] == "urn:problem-type:outcome-unknown"
        assert unknown != ("retry-after" in answer.headers)
        assert unknown or not stored


@pytest.mark.parametrize(("side", "fault"), [*product(SIDES, FAULTS)])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_fault_at_any_message_is_no_500_and_no_lie(
    breaking: tuple[BreakingWire, AsyncClient], onlooker: asyncpg.Connection, operation: str, side: str, fault: Fault
) -> None:
    wire, client = breaking
    assert (await send(client, operation, "first")).status_code == 200
    for message in range(100):
        label = f"{operation} {message}"
        if operation == "connect":
            wire.fault = "end"
            await wire.break_all(onlooker)
        wire.arm(side, message, fault)
        answer = await send(client, operation, label)
        broke, wire.left = wire.left is None, None
        await check_truth(answer, operation, label, onlooker)
        if operation in {"read", "probe"}:
            assert answer.status_code == 200
        again = await send(client, operation, f"again {label}")
        assert again.status_code == 200, again.text
        if not broke:
            break
        assert message < 99
    assert message > 2


@pytest.mark.parametrize(("side", "fault"), [*product(SIDES, FAULTS)])
async def test_a_fault_of_the_first_connection_is_no_500(
    settings: Settings, things: None, side: str, fault: Fault
) -> None:
    """SQLAlchemy runs statements of its own on the first one of an engine."""
    for message in range(100):
        async with broken(settings) as (wire, client):
            wire.arm(side, message, fault)
            answer = await send(client, "write", str(message))
            broke, wire.left = wire.left is None, None
            assert answer.status_code == (503 if broke else 200), answer.text
            assert (await send(client, "write", f"again {message}")).status_code == 200
        if not broke:
            break
    assert 20 < message < 99


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize(("operation", "side"), [*product(OPERATIONS, SIDES)])
async def test_a_pulse_that_ends_all_at_any_moment_is_no_500_and_no_lie(
    breaking: tuple[BreakingWire, AsyncClient], onlooker: asyncpg.Connection, operation: str, side: str, turns: int
) -> None:
    wire, client = breaking
    wire.turns = turns
    for message in range(100):
        label = f"{operation} {message}"
        if operation != "connect":
            assert (await send(client, operation, f"before {label}")).status_code == 200
        wire.arm(side, message, "end")
        answer = await send(client, operation, label)
        broke, wire.left = wire.left is None, None
        if broke and wire.ending:
            await wire.ending
        await check_truth(answer, operation, label, onlooker)
        if not broke:
            break
        assert message < 99
    assert message > 2


@pytest.mark.parametrize("code", ["57P01", "08P01"])
async def test_all_idle_connections_are_dropped_with_the_first(
    settings: Settings, things: None, onlooker: asyncpg.Connection, code: str
) -> None:
    """FATAL was sent to all of them, and the end of none has arrived."""
    async with broken(settings, pool_size=3, read_pool_size=3) as (wire, client):
        for first, second in (("read", "write"), ("write", "read")):
            labels = [(operation, f"{first} {operation} {number}") for number in range(3) for operation in OPERATIONS]
            opened = await asyncio.gather(*(send(client, *label) for label in labels))  # all connections of the pools
            assert {answer.status_code for answer in opened} == {200}
            wire.fault, wire.code = "fatal, and no end yet", code
            await wire.break_all(onlooker)
            assert (await send(client, first, "noticed")).status_code == (200 if first == "read" else 503)
            again = await asyncio.gather(*(send(client, first, f"{first} again {number}") for number in range(3)))
            assert [answer.status_code for answer in again] == [200, 200, 200]
            for label in range(4):
                assert (await send(client, second, f"{first} {label}")).status_code == 200
                assert (await send(client, first, f"{first} {label} too")).status_code == 200
                assert (await client.get("/probe")).status_code == 200
            for end in wire.mute:
                end.transport.abort()


def test_a_loss_that_is_noticed_many_times_is_one() -> None:
    """Or connections that were made since the first would be replaced with each of the others."""
    pulse = Pulse(partial(asyncio.sleep, 0), 1.0)
    for _ in range(3):
        pulse.lost(0)
    assert pulse.number == 1


@pytest.mark.parametrize("seconds", [3600.0, 0.0])
async def test_a_server_that_only_reads_is_not_connected_to_again_for_each_change(
    settings: Settings, things: None, onlooker: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """As many connections would be made as there are changes, and all others would be replaced with each."""
    monkeypatch.setattr("plinth.database.events.REPLACE_SECONDS", seconds)
    server = make_url(settings.database.url.get_secret_value())
    try:
        await onlooker.execute(f'ALTER DATABASE "{server.database}" SET default_transaction_read_only = on')
        async with WirePostgres(server.host or "", server.port or 5432) as wire:
            url = wire.through(server.render_as_string(hide_password=False))
            changed = {"url": SecretStr(url), "pool_size": 1, "read_pool_size": 1}
            async with open_database(settings.database.model_copy(update=changed), "standby") as database:

                async def write() -> None:
                    async with database.sessions.begin() as session:
                        await session.execute(insert(Thing).values(label=str(uuid4())))

                with wire.counting() as count:
                    for _ in range(5):
                        with pytest.raises(UnavailableError):
                            await write()
                        assert await database.reads.first(COUNT) == 0
                assert count.connections == (2 if seconds else 10)
                await onlooker.execute(f'ALTER DATABASE "{server.database}" RESET default_transaction_read_only')
                monkeypatch.setattr("plinth.database.events.REPLACE_SECONDS", 0.0)
                with suppress(UnavailableError):
                    await write()  # the last one on the connection from before
                await write()
    finally:
        await onlooker.execute(f'ALTER DATABASE "{server.database}" RESET default_transaction_read_only')


class RefusingWire(WirePostgres):
    """Refuses new connections, as PostgreSQL does: with an error of this code. What is connected goes on."""

    code: str | None = None
    refused = 0

    def _read(self, client: End, frame: bytes) -> bytes:
        if self.code is None or frame[0] != UNTAGGED or frame in ENCRYPTION_REQUESTS:
            return super()._read(client, frame)
        self.refused += 1
        client.transport.write(fatal(self.code))
        client.transport.close()
        return b""


@pytest.fixture
async def refusing(settings: Settings, things: None) -> AsyncIterator[tuple[RefusingWire, Database]]:
    server = make_url(settings.database.url.get_secret_value())
    async with RefusingWire(server.host or "", server.port or 5432) as wire:
        changed = {"url": wire.through(settings.database.url)}
        async with open_database(settings.database.model_copy(update=changed), "refused") as database:
            yield wire, database


async def write(database: Database) -> None:
    async with database.sessions.begin() as session:
        await session.execute(insert(Thing).values(label=str(uuid4())))


@pytest.mark.parametrize("code", ["53300", "57P03"])
async def test_not_each_request_attempts_a_connection_while_they_are_refused(
    refusing: tuple[RefusingWire, Database], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr("plinth.database.pulse.REFUSED_SECONDS", HOUR)
    wire, database = refusing
    before = await database.reads.first(COUNT)
    wire.code = code
    for kind in (write, Database.ping, write, Database.ping):
        with pytest.raises(UnavailableError) as raised:
            await kind(database)
        assert isinstance(raised.value.__cause__, asyncpg.PostgresError)
        assert raised.value.__cause__.sqlstate == code
    assert await database.reads.first(COUNT) == before  # on the connection that it has
    assert wire.refused == 1


async def test_one_connection_at_a_time_is_attempted_until_one_is_made(
    refusing: tuple[RefusingWire, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.database.pulse.REFUSED_SECONDS", 0.0)
    wire, database = refusing
    wire.code = "53300"
    with pytest.raises(UnavailableError):
        await write(database)
    monkeypatch.setattr("plinth.database.pulse.REFUSED_SECONDS", HOUR)  # from the next attempt on
    several = await asyncio.gather(*(write(database) for _ in range(5)), return_exceptions=True)
    assert {type(each) for each in several} == {UnavailableError}
    assert wire.refused == 2
    wire.code, database.reads.pulse._refused_until = None, 0.0
    await write(database)
    await asyncio.gather(*(write(database) for _ in range(5)), *(database.reads.first(COUNT) for _ in range(5)))


@pytest.mark.parametrize("code", sorted({*CODES} - {"57P03"}))
async def test_a_connection_that_is_lost_while_it_is_made_is_no_refusal(
    refusing: tuple[RefusingWire, Database], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr("plinth.database.pulse.REFUSED_SECONDS", HOUR)
    wire, database = refusing
    wire.code = code
    with pytest.raises(UnavailableError):
        await write(database)
    wire.code = None
    await write(database)


@pytest.mark.parametrize("code", CODES)
def test_fatal_is_a_lost_connection_whatever_its_code(code: str) -> None:
    error = asyncpg.PostgresError.new({"S": "FATAL", "V": "FATAL", "C": code, "M": "the connection ends"})
    assert is_connection_lost(error)
    assert is_outcome_unknown(error)
    assert translate(error) is not None


@pytest.mark.parametrize(
    ("error", "lost", "sent"),
    [
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"), True, False),
        (asyncpg.InternalClientError("not connected"), True, False),
        (asyncpg.ProtocolError("unexpected state"), True, False),
        (asyncpg.InterfaceError("connection is closed"), True, False),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), False, False),
        (asyncpg.InternalClientError("no decoder for OID 7"), False, False),
        (asyncpg.OutdatedSchemaCacheError("the number of columns changed"), False, False),
        (ConnectionResetError(), True, True),
        (BrokenPipeError(), True, True),
        (LookupError("closed"), False, False),
    ],
)
def test_a_mistake_is_not_a_lost_connection(error: Exception, lost: bool, sent: bool) -> None:
    assert is_connection_lost(error) == lost
    assert is_outcome_unknown(error) == sent
