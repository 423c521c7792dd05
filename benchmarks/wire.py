"""Round trips and bytes of a request of each scenario, once its statements are prepared."""

import asyncio
from random import Random
from urllib.parse import urlsplit

from httpx import AsyncClient, HTTPError

from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import Server
from benchmarks.testbed import Testbed
from plinth.testing.wire import WirePostgres, WireRedis

# One connection per pool, so that the second request uses the statements that the first has prepared.
ONE_CONNECTION = {"DATABASE_POOL_SIZE": "1", "DATABASE_READ_POOL_SIZE": "1"}


async def wire_counts(bed: Testbed) -> dict[str, dict[str, int]]:
    postgres_url, redis_url = bed.servers.database_url, bed.servers.redis_url
    async with WirePostgres(*_address(postgres_url)) as postgres, WireRedis(*_address(redis_url)) as redis:
        urls = {"DATABASE_URL": postgres.through(postgres_url), "REDIS_URL": redis.through(redis_url)}
        server = bed.launch_app("app behind proxies", urls | ONE_CONNECTION)
        async with AsyncClient(base_url=server.url, timeout=10) as client:
            await _ready(server, client)
            counts = {}
            for scenario in SCENARIOS:
                # The fixed seed makes the bytes the same in every run.
                first, *others = scenario.lines(Random(1), bed.products, 5)
                await _send(client, first, server.authorization)
                for line in others:
                    with postgres.counting() as to_postgres, redis.counting() as to_redis:
                        await _send(client, line, server.authorization)
                    # Neither the heartbeat of the invalidation listener, nor the ping where a statement takes long.
                    if "PING" not in to_redis.commands and "SELECT 1" not in to_postgres.statements:
                        break
                counts[scenario.name] = {
                    "PostgreSQL round trips": to_postgres.round_trips,
                    "PostgreSQL bytes": to_postgres.bytes_sent + to_postgres.bytes_received,
                    "Redis round trips": to_redis.round_trips,
                    "Redis bytes": to_redis.bytes_sent + to_redis.bytes_received,
                }
        server.process.stop()
    return counts


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


async def _ready(server: Server, client: AsyncClient) -> None:
    while server.process.exit_code is None:
        try:
            if (await client.get("/health/ready")).is_success:
                return
        except HTTPError:
            pass
        await asyncio.sleep(0.05)


async def _send(client: AsyncClient, line: str, authorization: str) -> None:
    method, path, *body = line.split(" ", 2)
    headers = {"Content-Type": "application/json", "Authorization": authorization} if body else {}
    response = await client.request(method, path, content="".join(body), headers=headers)
    response.raise_for_status()
