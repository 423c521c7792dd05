"""How Gunicorn's workers serve the application."""

import signal
import sys
import time
from types import FrameType

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger as GunicornLogger
from uvicorn.server import Server
from uvicorn_worker import UvicornWorker

from app.config import get_settings
from app.telemetry.logs import configure_logging

SERVER = get_settings().server


class Logger(GunicornLogger):  # type: ignore[misc]  # it carries no types
    """Lets Gunicorn's master log as its workers do, from the first line on."""

    def setup(self, cfg: object) -> None:
        super().setup(cfg)
        settings = get_settings()
        configure_logging(settings.log_level, settings.log_format, settings.app.name)


class DrainingServer(Server):
    """Asked to stop, it goes on for a while with `/health/ready` at 503, so that the load balancer turns away first."""

    _stops_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT or self._stops_at is not None:  # somebody at a terminal, or in a hurry
            super().handle_exit(sig, frame)
            return
        self.config.app.state.draining = True  # type: ignore[union-attr]
        self._stops_at = time.monotonic() + SERVER.drain_seconds

    async def on_tick(self, counter: int) -> bool:
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            self.should_exit = True
        return await super().on_tick(counter)


class Worker(UvicornWorker):  # type: ignore[misc]  # it carries no types
    """Uvicorn on uvloop and httptools, which finishes its requests and closes the lifespan before it leaves."""

    CONFIG_KWARGS = {  # noqa: RUF012 - the base class declares it so
        "loop": "uvloop",
        "http": "httptools",
        "lifespan": "on",
        "access_log": False,  # ours is a middleware: it knows the request id
        "server_header": False,
        # Gunicorn's graceful_timeout ends in SIGKILL, which would skip the end of the lifespan.
        "timeout_graceful_shutdown": max(1, int(SERVER.graceful_timeout_seconds - SERVER.drain_seconds - 1)),
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = DrainingServer(self.config)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
