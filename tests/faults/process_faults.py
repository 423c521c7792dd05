"""What the processes of a service go through."""

import os
import signal
from collections.abc import Callable
from time import monotonic, sleep

from tests.faults.scraping import until
from tests.faults.service import Service
from tests.faults.serving import STARTED


def worker_killed(service: Service, seconds: float) -> None:
    _replace(seconds, service, lambda: os.kill(service.server.workers()[0], signal.SIGKILL), 1)


def worker_stopped(service: Service, seconds: float) -> None:
    _replace(seconds, service, lambda: os.kill(service.server.workers()[0], signal.SIGTERM), 1)


def reloaded(service: Service, seconds: float) -> None:
    _replace(seconds, service, lambda: service.server.process.send_signal(signal.SIGHUP), 2)


def _replace(seconds: float, service: Service, action: Callable[[], object], workers: int) -> None:
    began = monotonic()
    before = service.server.output.count(STARTED)
    gone = [*service.server.workers()]
    action()
    service.server.wait_for(STARTED, before + workers)
    until(lambda: len(set(gone) - set(service.server.workers())) == workers)
    sleep(max(0, began + seconds - monotonic()))
