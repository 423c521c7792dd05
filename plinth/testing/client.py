"""The app as a test calls it: inside its lifespan, in this process, without a socket."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asyncpg import Connection
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import MetaData
from starlette.types import Receive, Scope, Send


@dataclass
class Service:
    """An app inside its lifespan, and the state that this yielded."""

    app: FastAPI
    state: Mapping[str, Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "state": dict(self.state)}, receive, send)  # httpx would not pass the state on

    def client(self) -> AsyncClient:
        return AsyncClient(transport=ASGITransport(self), base_url="http://test")


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncIterator[Service]:
    """Run the app's lifespan around the block."""
    async with app.router.lifespan_context(app) as state:
        yield Service(app, state or {})


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
