"""What the protocol adds to Uvicorn's, on a real listener of uvloop and over sockets."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from plinth.serving.protocol import Protocol

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
TIMEOUT = 5


@pytest.fixture(autouse=True)
def not_stopping() -> Iterator[None]:
    yield
    Protocol.stopping = False


class Endpoint:
    """An ASGI app that sends its head when `head` is set and its body when `body` is."""

    def __init__(self) -> None:
        self.requests = 0
        self.head, self.body = asyncio.Event(), asyncio.Event()

    def answer_at_once(self) -> None:
        self.head.set()
        self.body.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await self.head.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await self.body.wait()
        await send({"type": "http.response.body", "body": b"ok"})


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: Protocol) -> None:
        self.reader, self.writer, self.protocol = reader, writer, protocol

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.sleep(0.05)

    async def receive(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\nok"), TIMEOUT)

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(1), TIMEOUT) == b""


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[Client]:
    config = Config(endpoint, log_config=None, lifespan="off", access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    while not state.connections:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    [protocol] = state.connections
    assert isinstance(protocol, Protocol)
    try:
        yield Client(reader, writer, protocol)
    finally:
        endpoint.answer_at_once()
        writer.close()
        server.close()
        await asyncio.gather(*state.tasks)


async def test_a_connection_is_idle_between_a_response_and_the_first_byte_of_the_next_request() -> None:
    endpoint = Endpoint()
    async with connected(endpoint) as client:
        idle = [client.protocol.idle]
        for part in (REQUEST[:5], REQUEST[5:]):
            await client.send(part)
            idle.append(client.protocol.idle)
        assert idle == [True, False, False]
        endpoint.answer_at_once()
        await client.receive()
        idle = [client.protocol.idle]
        await client.send(REQUEST[:5])
        assert [*idle, client.protocol.idle] == [True, False]


async def test_a_connection_with_pipelined_requests_is_idle_after_the_last_response() -> None:
    endpoint = Endpoint()
    async with connected(endpoint) as client:
        await client.send(REQUEST * 2)
        endpoint.head.set()
        endpoint.body.set()
        await client.receive()
        await client.receive()
        assert client.protocol.idle


async def test_the_close_is_announced_with_a_response_whose_head_was_not_sent() -> None:
    endpoint = Endpoint()
    async with connected(endpoint) as client:
        await client.send(REQUEST)
        client.protocol.announce_close()
        endpoint.answer_at_once()
        assert b"connection: close" in await client.receive()
        assert await client.closed()


async def test_a_response_that_has_begun_ends_and_the_connection_stays_open() -> None:
    endpoint = Endpoint()
    async with connected(endpoint) as client:
        await client.send(REQUEST)
        endpoint.head.set()
        await asyncio.sleep(0.05)
        client.protocol.announce_close()
        endpoint.body.set()
        assert b"connection: close" not in await client.receive()
        Protocol.stopping = True
        await client.send(REQUEST)
        assert b"connection: close" in await client.receive()
        assert await client.closed()


@pytest.mark.parametrize("answered", [0, 1])
async def test_an_idle_connection_stays_open_for_one_more_request(answered: int) -> None:
    endpoint = Endpoint()
    endpoint.answer_at_once()
    async with connected(endpoint) as client:
        for _ in range(answered):
            await client.send(REQUEST)
            await client.receive()
        client.protocol.announce_close()
        Protocol.stopping = True
        await client.send(REQUEST)
        assert b"connection: close" in await client.receive()
        assert await client.closed()
        assert endpoint.requests == answered + 1
