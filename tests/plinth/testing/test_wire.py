"""The round-trip counter, on which all claims about round trips rest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from plinth.testing.wire import WirePostgres, WireRedis, cut

EndOfFrame = Callable[[bytearray], int | None]

READY = b"Z\0\0\0\x05I"
STARTUP = b"\0\0\0\x15\0\3\0\0user\0tester\0\0"
PASSWORD = b"p\0\0\0\x0bsecret\0"
PARSE = b"P\0\0\0\x13one\0SELECT 1\0\0\0"
SYNC = b"S\0\0\0\x04"
GET = b"*2\r\n$3\r\nGET\r\n$5\r\na\r\nbc\r\n"
SET_EMPTY = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n"


@pytest.fixture
async def postgres(database_url: str) -> AsyncIterator[WirePostgres]:
    url = urlsplit(database_url)
    async with WirePostgres(url.hostname or "", url.port or 5432) as wire:
        yield wire


@pytest.fixture
async def connection(postgres: WirePostgres, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.through(database_url))
    await connection.execute("CREATE TEMPORARY TABLE wired (id integer)")
    yield connection
    await connection.close()


@pytest.fixture
async def redis_wire(redis_url: str) -> AsyncIterator[WireRedis]:
    url = urlsplit(redis_url)
    async with WireRedis(url.hostname or "", url.port or 6379) as wire:
        yield wire


@pytest.fixture
async def redis(redis_wire: WireRedis, redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_wire.through(redis_url)) as redis:
        await redis.ping()
        yield redis


async def test_prepared_statement_is_one_trip(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    await connection.fetch("SELECT $1::int", 1)
    with postgres.counting() as count:
        assert await connection.fetchval("SELECT $1::int", 2) == 2
    await connection.fetchval("SELECT $1::int", 3)
    assert count.round_trips == 1
    assert count.statements == ["SELECT $1::int"]
    assert count.messages == len(["Bind", "Execute", "Sync"])


async def test_preparing_is_a_trip_of_its_own(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    with postgres.counting() as count:
        await connection.fetch("SELECT 42 AS cold")
    assert count.round_trips == 2
    assert count.statements == ["SELECT 42 AS cold"]


async def test_transaction_of_one_insert_is_three_trips(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    insert = "INSERT INTO wired VALUES ($1)"
    await connection.fetch(insert, 1)
    with postgres.counting() as count:
        async with connection.transaction():
            await connection.fetch(insert, 2)
    assert count.round_trips == 3
    assert count.statements == ["BEGIN;", insert, "COMMIT;"]


async def test_simple_query_is_one_trip_with_any_content(
    postgres: WirePostgres, connection: asyncpg.Connection
) -> None:
    with postgres.counting() as count:
        await connection.execute("SELECT 1; SELECT 2")
    assert count.round_trips == 1
    assert count.statements == ["SELECT 1; SELECT 2"]


async def test_many_rows_are_one_trip(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    insert = "INSERT INTO wired VALUES ($1)"
    await connection.fetch(insert, 1)
    with postgres.counting() as count:
        await connection.executemany(insert, [(number,) for number in range(1000)])
    assert count.round_trips == 1
    assert count.statements == [insert] * 1000


async def test_large_answer_is_one_trip_and_arrives_complete(
    postgres: WirePostgres, connection: asyncpg.Connection
) -> None:
    query = "SELECT repeat('x', $1)"
    await connection.fetchval(query, 1)
    with postgres.counting() as count:
        assert len(await connection.fetchval(query, 20_000_000)) == 20_000_000
    assert count.round_trips == 1
    assert count.bytes_received > 20_000_000


async def test_copy_is_one_trip_after_its_description(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    with postgres.counting() as count:
        await connection.copy_records_to_table("wired", records=[(number,) for number in range(1000)])
    assert count.round_trips == 2


@pytest.mark.parametrize("data", ["before PostgreSQL is ready for them", "after that"])
async def test_data_of_a_copy_are_no_trip_whenever_they_are_sent(
    postgres: WirePostgres, connection: asyncpg.Connection, data: str
) -> None:
    async def records() -> AsyncIterator[tuple[int]]:
        before = count.bytes_received
        while data == "after that" and count.bytes_received == before:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
        yield (1,)

    await connection.copy_records_to_table("wired", records=[])
    with postgres.counting() as count:
        await connection.copy_records_to_table("wired", records=records())
    assert count.round_trips == 1


async def test_more_than_the_socket_buffers_arrives_complete(
    postgres: WirePostgres, connection: asyncpg.Connection
) -> None:
    records = [(number,) for number in range(500_000)]
    with postgres.counting() as count:
        await connection.copy_records_to_table("wired", records=records)
    assert count.bytes_sent > len(records) * 10
    assert await connection.fetchval("SELECT count(*) FROM wired") == len(records)


async def test_failed_statement_is_a_trip(postgres: WirePostgres, connection: asyncpg.Connection) -> None:
    query = "SELECT 1 / $1::int"
    await connection.fetchval(query, 1)
    with postgres.counting() as count, pytest.raises(asyncpg.DivisionByZeroError):
        await connection.fetchval(query, 0)
    assert count.round_trips == 1


async def test_connections_count_apart_from_trips(postgres: WirePostgres, database_url: str) -> None:
    with postgres.counting() as count:
        first, second = await asyncio.gather(*(asyncpg.connect(postgres.through(database_url)) for _ in range(2)))
        await asyncio.gather(first.close(), second.close())
    assert (count.connections, count.round_trips, count.messages) == (2, 0, 0)


async def test_gathered_on_two_connections_is_two_trips(
    postgres: WirePostgres, connection: asyncpg.Connection, database_url: str
) -> None:
    other = await asyncpg.connect(postgres.through(database_url))
    await asyncio.gather(connection.fetch("SELECT 1"), other.fetch("SELECT 1"))
    with postgres.counting() as count:
        await asyncio.gather(connection.fetch("SELECT 1"), other.fetch("SELECT 1"))
    assert count.round_trips == 2
    await other.close()


async def test_connection_closes_when_the_server_is_down() -> None:
    async with WirePostgres("127.0.0.1", 1) as wire:
        with pytest.raises((ConnectionError, asyncpg.ConnectionDoesNotExistError)):
            await asyncpg.connect(wire.through("postgresql://postgres@somewhere:5432/postgres"))


async def test_open_connections_are_closed_on_exit(database_url: str, onlooker: asyncpg.Connection) -> None:
    url = urlsplit(database_url)
    async with WirePostgres(url.hostname or "", url.port or 5432) as wire:
        connection = await asyncpg.connect(wire.through(database_url))
        backend = connection.get_server_pid()
        with wire.counting() as count:
            slow = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
            while not count.statements:  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await slow
    # PostgreSQL does not notice it, and other tests look at what runs there.
    assert await onlooker.fetchval("SELECT pg_terminate_backend($1, 10000)", backend)
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(wire.through(database_url))


async def test_redis_command_is_one_trip(redis_wire: WireRedis, redis: Redis) -> None:
    with redis_wire.counting() as count:
        await redis.set("wire", "1")
        assert await redis.get("wire") == b"1"
    assert (count.round_trips, count.commands) == (2, ["SET", "GET"])
    assert count.bytes_sent == len(b"*3\r\n$3\r\nSET\r\n$4\r\nwire\r\n$1\r\n1\r\n*2\r\n$3\r\nGET\r\n$4\r\nwire\r\n")


async def test_redis_pipeline_is_one_trip(redis_wire: WireRedis, redis: Redis) -> None:
    with redis_wire.counting() as count:
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(100):
                pipeline.set(f"wire:{number}", "x" * 500, ex=1)
            await pipeline.execute()
    assert (count.round_trips, count.messages) == (1, 100)


async def test_byte_by_byte_is_still_one_trip(postgres: WirePostgres, database_url: str) -> None:
    url = urlsplit(database_url)
    names = f"user\0{url.username}\0database\0{url.path[1:]}\0\0".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", postgres.port)
    await _dribble(writer, (len(names) + 8).to_bytes(4) + b"\0\3\0\0" + names)
    await reader.readuntil(READY)
    with postgres.counting() as count:
        await _dribble(writer, b"Q\0\0\0\x0dSELECT 1\0")
        await reader.readuntil(READY)
    assert (count.round_trips, count.messages, count.statements) == (1, 1, ["SELECT 1"])
    writer.close()


async def test_redis_byte_by_byte_is_still_one_trip(redis_wire: WireRedis) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis_wire.port)
    with redis_wire.counting() as count:
        await _dribble(writer, GET)
        assert await reader.readline() == b"$-1\r\n"
    assert (count.round_trips, count.commands, count.bytes_sent) == (1, ["GET"], len(GET))
    writer.close()


async def _dribble(writer: asyncio.StreamWriter, stream: bytes) -> None:
    for byte in stream:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("frames", "end_of_frame"),
    [
        pytest.param([STARTUP, PASSWORD, PARSE, SYNC, SYNC, PARSE], WirePostgres.end_of_frame, id="postgres"),
        pytest.param([GET, SET_EMPTY, GET, GET], WireRedis.end_of_frame, id="redis"),
    ],
)
@given(data=st.data())
def test_frames_are_complete_wherever_the_stream_is_split(
    frames: list[bytes], end_of_frame: EndOfFrame, data: st.DataObject
) -> None:
    whole = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=len(whole)).map(sorted))
    stream = bytearray()
    found: list[bytes] = []
    for start, end in pairwise([0, *cuts, len(whole)]):
        stream += whole[start:end]
        found += cut(stream, end_of_frame)
    assert found == frames
    assert not stream
