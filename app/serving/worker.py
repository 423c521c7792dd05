"""The classes that gunicorn.conf.py names."""

import faulthandler
import sys

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from uvicorn_worker import UvicornWorker

from app.config import get_settings
from app.serving.protocol import Protocol
from app.serving.server import LeavingServer
from app.telemetry.logs import configure_logging

SERVER = get_settings().server


class Logger(GunicornLogger):  # type: ignore[misc]  # it carries no types
    """Lets Gunicorn's master log as its workers do, from the first line on."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        settings = get_settings()
        configure_logging(settings.log_level, settings.log_format, settings.app.name)


class Worker(UvicornWorker):  # type: ignore[misc]  # it carries no types
    """Uvicorn on uvloop and httptools, which finishes its requests and closes the lifespan before it leaves."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it so
        "loop": "uvloop",
        "http": Protocol,
        "lifespan": "on",
        "access_log": False,  # ours is a middleware: it knows the request id
        "server_header": False,
        "limit_max_requests": None,  # it would leave without a successor
        # Gunicorn's graceful_timeout ends in SIGKILL, which would skip the end of the lifespan.
        "timeout_graceful_shutdown": max(1, SERVER.graceful_timeout_seconds - 1),
    }

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.enable()  # Gunicorn ends a worker that hangs by SIGABRT, and this shows where it was

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = LeavingServer(self.config, self, SERVER)
        await server.serve(sockets=[each.sock for each in self.sockets])  # uvloop closes a real socket once
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
