"""What a miss costs on the wire to Redis, with the app's own middleware, and that nothing is waited for in vain."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from httpx import AsyncClient
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from plinth.testing.client import Service, serve
from tests.faults.redis_server import wait_until
from tests.plinth.cache.support import FaultyWire, bus_of

HEARTBEATS = {"PING", "GET"}


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[FaultyWire]:
    address = urlsplit(redis_url)
    async with FaultyWire(address.hostname or "", address.port or 6379) as wire:
        yield wire


@pytest.fixture
async def service(settings: Settings, redis_url: str, wire: FaultyWire) -> AsyncIterator[Service]:
    changed = {
        "redis": settings.redis.model_copy(update={"url": wire.through(SecretStr(redis_url))}),
        "cache": settings.cache.model_copy(update={"namespace": f"test-{uuid4()}"}),
    }
    async with serve(create_app(settings.model_copy(update=changed))) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with service.client() as client:
        yield client


async def commands(wire: FaultyWire, service: Service, path: str) -> tuple[list[str], str]:
    """The commands that a request has sent when everything it began has ended, and what the cache was for it."""
    cache = service.state["cache"]
    with wire.counting() as count:
        async with service.client() as client:
            answer = await client.get(path)
        await wait_until(lambda: not cache._tasks)
        # Commands that wait to be sent leave before these, and those sent after the response have then been counted.
        for connection in (bus_of(cache)._commands, bus_of(cache)._messages):
            await connection.execute("ECHO", "end")
    sent = [each for each in count.commands if each not in HEARTBEATS]
    assert sent[-2:] == ["ECHO", "ECHO"]
    return sent[:-2], answer.headers["X-Cache"]


@pytest.mark.parametrize("path", ["/api/products/999", "/api/categories", "/api/products?limit=5"])
async def test_a_miss_takes_two_commands_and_a_hit_none(wire: FaultyWire, service: Service, path: str) -> None:
    assert await commands(wire, service, path) == (["EVAL", "EVAL"], "miss")
    assert await commands(wire, service, path) == ([], "hit")


async def test_the_second_command_is_not_waited_for(wire: FaultyWire, client: AsyncClient) -> None:
    wire.replies_to_pass = 1
    async with asyncio.timeout(20):
        assert (await client.get("/api/categories")).headers["X-Cache"] == "miss"
        await wait_until(lambda: bool(wire.held))
        assert (await client.get("/api/categories")).headers["X-Cache"] == "hit"
    wire.restore()


async def test_a_request_that_is_not_cached_takes_no_command(wire: FaultyWire, service: Service) -> None:
    assert await commands(wire, service, "/api/products?junk=1") == ([], "bypass")
    assert await commands(wire, service, "/api/products/007") == ([], "bypass")
