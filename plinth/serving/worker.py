"""The worker class that gunicorn.conf.py names."""

import asyncio
import faulthandler
import gc
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from plinth.serving.fleet import fleet
from plinth.serving.protocol import Protocol
from plinth.serving.server import GracefulServer

RETRY_SECONDS = 1.0
# Requests in progress are made of many objects and of no garbage. With Python's default of 700 new objects, collections
# took a fifth of the CPU time at 512 connections.
GC_THRESHOLD = 10_000


class Worker(UvicornWorker):  # type: ignore[misc]  # it carries no types
    """Uvicorn on uvloop and httptools, which finishes its requests and closes the lifespan before it exits."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it so
        "loop": "uvloop",
        "http": Protocol,
        "lifespan": "on",
        "factory": True,
        "access_log": False,  # RequestContextMiddleware's includes the request id
        "server_header": False,
        "proxy_headers": False,  # ForwardedMiddleware's task
        "limit_max_requests": None,  # it would stop before a successor serves
        "timeout_graceful_shutdown": 1,  # for requests that GracefulServer has cancelled
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A factory, because the app is imported after Uvicorn's configuration has been made here.
        own = {"app": lambda: self.wsgi, "limit_concurrency": fleet.settings.limit_concurrency}
        self.CONFIG_KWARGS = {**self.CONFIG_KWARGS, **own}
        super().__init__(*args, **kwargs)

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.enable()  # Gunicorn ends a worker that hangs by SIGABRT: this prints where it hung
        self.notify()  # the import of the app comes next, and has the whole timeout

    def load_wsgi(self) -> None:
        gc.disable()  # an import makes little garbage, and collections take a sixth of its time
        try:
            super().load_wsgi()
        except Exception:
            self.log.exception("The app cannot be imported")
            _exit_failed(Arbiter.APP_LOAD_ERROR)
        gc.collect()
        gc.freeze()  # the app's own objects live as long as the process, and are not examined again
        gc.set_threshold(GC_THRESHOLD)
        gc.enable()

    def run(self) -> None:
        server = GracefulServer(self.config, self)
        sockets = [each.sock for each in self.sockets]  # uvloop closes a real socket once
        # If the lifespan fails, Uvicorn logs it and exits.
        with suppress(SystemExit), asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=sockets))
        if not server.started:
            _exit_failed(Arbiter.WORKER_BOOT_ERROR)


def _exit_failed(code: int) -> NoReturn:
    """Exit after a failed start. These codes make Gunicorn stop the service, so not once any worker has served."""
    if fleet.has_booted():
        time.sleep(RETRY_SECONDS)
        sys.exit(1)
    fleet.announce_stop()
    sys.exit(code)
