import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from plinth.errors import DeadlineError, NotFoundError
from plinth.resilience import Processes, deadline, open_processes
from plinth.testing.environment import ROOT
from tests.plinth.resilience import work


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    async with open_processes(2) as processes:
        yield processes


def children() -> dict[int, str]:
    """The state of each process that this one has started: Z is a zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(") ")[2].split()[:2]
        except OSError:  # it has ended
            continue
        if int(parent) == os.getpid() and b"anyio.to_process" in (path.parent / "cmdline").read_bytes():
            found[int(path.parent.name)] = state
    return found


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)


async def test_a_function_runs_in_a_process_that_is_used_again(processes: Processes) -> None:
    assert await processes.run(work.square, 12) == 144
    first, second = await processes.run(work.process_id), await processes.run(work.process_id)
    assert first == second != os.getpid()


async def test_an_error_of_the_function_arrives_as_it_is(processes: Processes) -> None:
    with pytest.raises(NotFoundError, match=r"^Product 7 does not exist\.$"):
        await processes.run(work.fail, 7)
    assert await processes.run(work.square, 2) == 4


async def test_processes_that_end_while_they_are_idle_are_replaced(processes: Processes) -> None:
    """Be it for lack of memory. Until the event loop knows of it, anyio takes one that is ending for an idle one."""
    for _ in range(3):
        ending = await asyncio.gather(processes.run(work.read_no_more), processes.run(work.read_no_more))
        for _ in range(10):
            await asyncio.sleep(0)
        assert await processes.run(work.process_id) not in ending


async def test_the_loop_turns_while_a_process_calculates(processes: Processes, tmp_path: Path) -> None:
    call = asyncio.create_task(processes.run(work.spin, str(tmp_path / "begun"), str(tmp_path / "enough")))
    await asyncio.to_thread(wait_for, tmp_path / "begun")
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not call.done()
    (tmp_path / "enough").touch()
    await call


async def test_there_are_no_more_than_allowed(processes: Processes) -> None:
    ids = await asyncio.gather(*[processes.run(work.process_id) for _ in range(20)])
    assert len({*ids}) <= 2


async def test_a_deadline_kills_the_process_and_frees_its_place(processes: Processes, tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / str(number)
        with pytest.raises(DeadlineError):
            async with deadline(60):
                call = asyncio.create_task(processes.run(work.hang, str(path)))
                await asyncio.to_thread(wait_for, path)
                async with deadline(0):
                    await call
        assert int(path.read_text()) not in children()  # ended and waited for
    assert await processes.run(work.square, 3) == 9


async def test_a_process_that_is_not_needed_any_more_while_it_starts_is_kept(
    processes: Processes, tmp_path: Path
) -> None:
    before = {*children()}
    for milliseconds in range(0, 200, 10):
        with pytest.raises(DeadlineError):
            async with deadline(milliseconds / 1000):
                await processes.run(work.hang, str(tmp_path / "hung"))
    await processes.aclose()
    ids = await asyncio.gather(*[processes.run(work.process_id) for _ in range(20)])
    started = children()
    assert {*started} - before <= {*ids}
    assert "Z" not in started.values()


MAIN = """
import asyncio, sys
from plinth.errors import DeadlineError
from plinth.resilience import deadline, open_processes
from tests.plinth.resilience import work

async def main():
    async with open_processes(2) as processes:
        print(*{*await asyncio.gather(*[processes.run(work.process_id) for _ in range(9)])}, flush=True)
        call = asyncio.create_task(processes.run(work.hang, sys.argv[1]))
        try:
            async with deadline(0.01):
                await processes.run(work.hang, sys.argv[2])
        except DeadlineError:
            pass

if __name__ == "__main__":
    if sys.argv[3] == "uvloop":
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_idle_and_busy_processes_end_with_the_loop(tmp_path: Path, loop: str) -> None:
    (script := tmp_path / "main.py").write_text(MAIN)
    command = [sys.executable, "-W", "error", *map(str, (script, tmp_path / "a", tmp_path / "b", loop))]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.stderr == ""
    for id in ended.stdout.split():
        assert not Path(f"/proc/{id}/cmdline").exists() or not Path(f"/proc/{id}/cmdline").read_bytes()  # a zombie
