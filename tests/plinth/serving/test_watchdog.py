"""What the watchdog logs of code that blocks the event loop of this process."""

import logging
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from plinth.serving.watchdog import Watchdog
from tests.faults.redis_server import wait_until
from tests.faults.scraping import until
from tests.plinth.http.apps import RecordingHandler

MESSAGE = "The event loop is blocked by"


class Lines(RecordingHandler):
    """Keeps the lines of the watchdog."""

    def __init__(self) -> None:
        super().__init__(None)

    @property
    def stacks(self) -> list[str]:
        return [vars(each)["stack"] for each in self.records if each.getMessage().startswith(MESSAGE)]


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger("plinth.serving.watchdog")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


@pytest.fixture
async def watchdog(lines: Lines) -> AsyncIterator[Watchdog]:
    watchdog = Watchdog(0.1)
    watchdog.start()
    yield watchdog
    watchdog.stop()
    watchdog.join()


def block_here() -> None:
    time.sleep(1)


def block_there() -> None:
    time.sleep(1)


async def beaten(watchdog: Watchdog) -> None:
    """Wait until the loop has run the next timer."""
    before = watchdog._last_beat_at
    await wait_until(lambda: watchdog._last_beat_at != before)


async def test_code_that_blocks_is_logged_once_a_minute(
    watchdog: Watchdog, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(function: str) -> int:
        return sum(stack.splitlines()[-2].endswith(f"in {function}") for stack in lines.stacks)

    for block in (block_here, block_here, block_there):
        block()
        await beaten(watchdog)
    await wait_until(lambda: (count("block_here"), count("block_there")) == (1, 1))
    await wait_until(lambda: "was blocked for" in lines.records[-1].getMessage())
    monkeypatch.setattr("plinth.serving.watchdog.REPEAT_SECONDS", 0.0)
    block_here()
    await wait_until(lambda: count("block_here") == 2)


class Clock:
    """Stands still until it is set. Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now, self.reads = 0.0, 0

    def monotonic(self) -> float:
        self.reads += 1
        return self.now


async def test_code_blocks_once_it_takes_longer_than_is_set(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("plinth.serving.watchdog.time", clock)
    watchdog = Watchdog(0.1)
    watchdog.start()
    clock.now = 0.1
    seen = clock.reads
    until(lambda: clock.reads > seen + 3 or bool(lines.stacks))  # this blocks the event loop, as does the next
    assert lines.stacks == []
    clock.now = 0.101
    until(lambda: bool(lines.stacks))
    watchdog.stop()
    watchdog.join()
