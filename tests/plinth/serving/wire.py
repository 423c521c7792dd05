"""One connection to plinth's protocol: a real listener and socket, whose server side is fed segment by segment."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from plinth.serving.protocol import Protocol

TIMEOUT = 10


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the method, the path and the body of the request."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    content = f"{scope['method']} {scope['path']} ".encode() + body
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": content})


class Wire:
    def __init__(self, protocol: Protocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.protocol, self.reader, self.writer = protocol, reader, writer

    def feed(self, segments: Iterable[bytes]) -> None:
        """Receive data as if each segment had arrived on its own."""
        for segment in segments:
            self.protocol.data_received(segment)

    async def answer(self, bodiless: bool = False) -> Answer | None:
        """Read one response; None after the last."""
        if not (first := await asyncio.wait_for(self.reader.read(1), TIMEOUT)):
            return None
        head = first + await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        line, *fields = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        length = 0 if bodiless else int(headers["content-length"])
        return Answer(int(line.split()[1]), headers, await asyncio.wait_for(self.reader.readexactly(length), TIMEOUT))

    async def answers(self) -> list[Answer]:
        """Read all responses up to the end of the connection."""
        return [answer async for answer in self._until_closed()]

    async def _until_closed(self) -> AsyncIterator[Answer]:
        while (answer := await self.answer()) is not None:
            yield answer


@asynccontextmanager
async def wire(app: Any = echo, **options: Any) -> AsyncIterator[Wire]:
    config = Config(app, log_config=None, lifespan="off", access_log=False, **options)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    while not state.connections:  # noqa: ASYNC110
        await asyncio.sleep(0)
    [protocol] = state.connections
    try:
        yield Wire(cast(Protocol, protocol), reader, writer)
    finally:
        writer.close()
        server.close()
        cast(Protocol, protocol).transport.abort()
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
