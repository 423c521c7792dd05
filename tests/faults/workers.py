"""Two processes that serve the counters, as two workers do."""

import asyncio
import sys
from collections.abc import AsyncIterator
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
    variables = child_environment(DATABASE_URL=database_url, REDIS_URL=redis_url, LOG_LEVEL="WARNING", **environment)
    async with AsyncExitStack() as stack:
        clients = []
        for number in (1, 2):
            port = stack.enter_context(reserved_port())
            argv = [sys.executable, "-m", "uvicorn", "tests.faults.counters:app", f"--port={port}", "--no-access-log"]
            log = stack.enter_context((directory / f"{number}.log").open("wb"))
            stack.callback(print_log, Path(log.name))
            process = await asyncio.create_subprocess_exec(*argv, cwd=directory, env=variables, stdout=log, stderr=log)
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            client = AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
            clients.append(await stack.enter_async_context(client))
            while not await is_ready(client):
                assert process.returncode is None, (directory / f"{number}.log").read_text()
        yield clients


def print_log(log: Path) -> None:
    """pytest captures the output, and shows it if the test fails."""
    print(log.name, log.read_text(), sep="\n")  # noqa: T201


async def is_ready(client: AsyncClient) -> bool:
    with suppress(HTTPError):
        return (await client.get("/ready")).is_success
    await asyncio.sleep(0.01)
    return False
