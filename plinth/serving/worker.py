"""The classes that gunicorn.conf.py names."""

import faulthandler
import gc
import sys
import time
from typing import Any, NoReturn

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from plinth.serving.fleet import fleet
from plinth.serving.protocol import Protocol
from plinth.serving.server import LeavingServer

RETRY_SECONDS = 1.0
# What hundreds of waiting requests are made of is no garbage. With Python's own 700, to look through it again and again
# was a fifth of the work at 512 connections.
NEW_OBJECTS = 10_000


class Worker(UvicornWorker):  # type: ignore[misc]  # it carries no types
    """Uvicorn on uvloop and httptools, which finishes its requests and closes the lifespan before it leaves."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it so
        "loop": "uvloop",
        "http": Protocol,
        "lifespan": "on",
        "access_log": False,  # ours is a middleware: it knows the request id
        "server_header": False,
        "limit_max_requests": None,  # it would leave without a successor
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Gunicorn's graceful_timeout ends in SIGKILL, which would skip the end of the lifespan: a quarter is for that.
        self.config.timeout_graceful_shutdown = max(1, self.cfg.graceful_timeout * 3 // 4)

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.enable()  # Gunicorn ends a worker that hangs by SIGABRT, and this shows where it was
        self.notify()  # from here on it may hang

    def load_wsgi(self) -> None:
        gc.disable()  # an import makes little garbage, and looking for it takes a sixth of the time
        try:
            super().load_wsgi()
        except Exception:
            self.log.exception("The app cannot be imported")
            _give_up(Arbiter.APP_LOAD_ERROR)
        gc.collect()
        gc.freeze()  # what the app is made of stays, and need not be looked through again
        gc.set_threshold(NEW_OBJECTS)
        gc.enable()

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = LeavingServer(self.config, self, fleet.settings)
        try:
            await server.serve(sockets=[each.sock for each in self.sockets])  # uvloop closes a real socket once
        except SystemExit:  # the lifespan failed, which Uvicorn has logged
            _give_up(Arbiter.WORKER_BOOT_ERROR)
        if not server.started:
            _give_up(Arbiter.WORKER_BOOT_ERROR)


def _give_up(code: int) -> NoReturn:
    """With such a code Gunicorn ends everything; but not those who serve, because one who comes later cannot."""
    if fleet.has_booted():
        time.sleep(RETRY_SECONDS)
        code = 1
    sys.exit(code)
