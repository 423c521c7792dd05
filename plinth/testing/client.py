"""The app as a test calls it: inside its lifespan and in this process, without a socket or on one."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from asyncpg import Connection
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import MetaData
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


@dataclass
class Service:
    """An app inside its lifespan, and the state that this yielded."""

    app: FastAPI
    state: Mapping[str, Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": dict(self.state)}, receive, send)  # httpx would not pass the state on

    def client(self, headers: Mapping[str, str] | None = None) -> AsyncClient:
        """A client that sends these headers with each request."""
        return AsyncClient(transport=ASGITransport(self), base_url="http://test", headers=headers)


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[Service]:
    """Run the app's lifespan around the block, through its middleware, as a server does."""
    state: dict[str, Any] = {}
    received, sent = asyncio.Queue[Message](), asyncio.Queue[Message]()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.create_task(app(scope, received.get, sent.put))
    await received.put({"type": "lifespan.startup"})
    if (await sent.get())["type"] != "lifespan.startup.complete":
        await task  # raises what it has failed with
    try:
        yield Service(app, state)
    finally:
        await received.put({"type": "lifespan.shutdown"})
        await task


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """Serve an app on a port of its own, with the HTTP parser of production. Returns the port."""
    config = uvicorn.Config(app, http="httptools", lifespan="off", access_log=False, log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpToolsProtocol(config, state, app_state={}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.gather(*state.tasks)


async def empty(connection: Connection, metadata: MetaData) -> None:
    """Delete the rows of all tables, and begin their ids at 1 again.

    This is many times faster than TRUNCATE where there are only a few rows.
    """
    for table in reversed(metadata.sorted_tables):
        await connection.execute(f"DELETE FROM {table.name}")
        for column in table.columns:
            if column.identity is not None:
                sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                await connection.execute(f"SELECT setval({sequence}, 1, false)")
