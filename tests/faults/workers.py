"""Processes that serve an application, as workers do."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from httpx import AsyncClient, HTTPError

from plinth.testing.environment import child_environment
from plinth.testing.network import reserved_port


@asynccontextmanager
async def two_workers(
    directory: Path, database_url: str, redis_url: str, **environment: str
) -> AsyncIterator[list[AsyncClient]]:
    """Start them, and yield a client of each. Their output goes to `directory`, and is printed at the end."""
    environment |= {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                served("tests.faults.counters:app", directory / f"{number}.log", environment)
            )
            for number in (1, 2)
        ]


@asynccontextmanager
async def served(application: str, output: Path, environment: Mapping[str, str]) -> AsyncIterator[AsyncClient]:
    """Start a process that serves the application, and yield a client of it."""
    async with AsyncExitStack() as stack:
        port = stack.enter_context(reserved_port())
        argv = [sys.executable, "-m", "uvicorn", application, f"--port={port}", "--no-access-log"]
        log = stack.enter_context(output.open("wb"))
        stack.callback(print_log, output)
        variables = child_environment(LOG_LEVEL="WARNING", **environment)
        process = await asyncio.create_subprocess_exec(*argv, cwd=output.parent, env=variables, stdout=log, stderr=log)
        stack.push_async_callback(process.wait)
        stack.callback(process.kill)
        client = await stack.enter_async_context(AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30))
        while not await is_ready(client):
            assert process.returncode is None, f"see {output}"
        yield client


def print_log(log: Path) -> None:
    """pytest captures the output, and shows it if the test fails."""
    print(log.name, log.read_text(), sep="\n")  # noqa: T201


async def is_ready(client: AsyncClient) -> bool:
    with suppress(HTTPError):
        return (await client.get("/ready")).is_success
    await asyncio.sleep(0.01)
    return False
