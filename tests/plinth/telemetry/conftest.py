"""Processes of the service in traced.py, and what they send."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from plinth.testing.environment import child_environment
from tests.faults.serving import Served
from tests.plinth.serving.conftest import Serve, app_serve, serve
from tests.plinth.telemetry.receiver import Receiver, receiving

__all__ = ["app_serve", "serve"]

Start = Callable[..., AbstractContextManager[Served]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def variables(receiver: Receiver) -> dict[str, str]:
    """Of each process of the service: the receiver is what it calls, and the queue is this test's."""
    return {"CALLED": receiver.address, "JOB_QUEUES": f"q{uuid4().hex}", "OTEL_BSP_SCHEDULE_DELAY": "20"}


@pytest.fixture
def start(serve: Serve, variables: dict[str, str]) -> Start:
    """Starts Gunicorn with one worker."""
    return lambda **environment: serve("tests.plinth.telemetry.traced:app", **variables | environment)


@pytest.fixture
def start_worker(tmp_path: Path, database_url: str, redis_url: str, variables: dict[str, str]) -> Start:
    """Starts a process that runs the jobs."""

    @contextmanager
    def started(**environment: str) -> Iterator[Served]:
        servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.plinth.telemetry.traced", "worker"],
            cwd=tmp_path,
            env=child_environment(**servers | variables | environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        worker = Served(process)
        try:
            yield worker
        finally:
            process.terminate()
            worker.wait_until_exited()

    return started
