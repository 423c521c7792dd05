"""Gunicorn with Uvicorn workers. Every number comes from the service's settings (see app/settings.py).

A reload (SIGHUP) reads this file and the settings anew, and its workers import the app anew; what the master itself has
imported (app/settings.py, plinth/serving, plinth/telemetry) changes with a restart only.
"""

import subprocess
import sys
from typing import Any

from gunicorn.glogging import Logger

from app.settings import get_settings
from plinth.errors import ConfigurationError
from plinth.serving import fleet, handle_sigterm
from plinth.telemetry import configure_logging

get_settings.cache_clear()
try:
    settings = get_settings()
except ConfigurationError as error:
    sys.exit(str(error))
fleet.configure(settings.server)

wsgi_app = "app.main:app"
worker_class = "plinth.serving.worker.Worker"
bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
proc_name = settings.app.name

workers = settings.workers  # one a core: workers here never block, so more would only take memory
worker_tmp_dir = "/dev/shm" if sys.platform == "linux" else None  # a heartbeat on a slow disk looks like a dead worker
max_requests = settings.server.max_requests
max_requests_jitter = settings.server.max_requests_jitter

timeout = settings.server.timeout_seconds
graceful_timeout = settings.server.graceful_timeout_seconds
keepalive = settings.server.keep_alive_seconds
forwarded_allow_ips = settings.http.trusted_proxies

control_socket_disable = True  # it would live in the home folder, which a read-only container does not have


class ServiceLogger(Logger):  # type: ignore[misc]  # it carries no types
    """Makes Gunicorn's master log as its workers do, from the first line on."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        configure_logging(settings.log_level, settings.log_format, settings.app.name)


logger_class = ServiceLogger


def on_starting(server: Any) -> None:
    handle_sigterm()
    if settings.server.drain_file:
        settings.server.drain_file.unlink(missing_ok=True)
    # Once, and not by workers: neither a reload nor a worker that is replaced may fail on a database that is away. And
    # in a process of its own: what the master imports, a reload would not bring anew.
    if code := subprocess.call([sys.executable, "-m", "app", "check"]):
        sys.exit(code)
    fleet.on_starting(server)


on_reload = fleet.on_reload
nworkers_changed = fleet.nworkers_changed
pre_fork = fleet.pre_fork
child_exit = fleet.child_exit
