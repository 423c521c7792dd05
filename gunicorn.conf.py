"""Gunicorn with Uvicorn workers. Every number comes from the service's settings (see app/settings.py).

A reload (SIGHUP) reads this file and the settings again, and its workers import the app again. What the master itself
has imported (app/settings.py, plinth/serving, plinth/telemetry) changes with a restart only.
"""

import subprocess
import sys
from typing import Any

from plinth.serving.metrics_folder import make_folder, remove_folder

make_folder()  # for the metrics of the workers, before anything imports prometheus_client

from app.settings import get_settings  # noqa: E402
from plinth.errors import ConfigurationError  # noqa: E402
from plinth.serving import fleet  # noqa: E402
from plinth.telemetry import logging_config  # noqa: E402
from plinth.telemetry.scraping import fold_dead  # noqa: E402

get_settings.cache_clear()
try:
    settings = get_settings()
except ConfigurationError as error:
    sys.exit(str(error))
fleet.settings = settings.server

wsgi_app = "app.main:app"
worker_class = "plinth.serving.worker.Worker"
host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = [f"{host}:{settings.port}"]
if settings.metrics.port:  # answered by whichever worker accepts the connection, and with /metrics only
    bind.append(f"{host}:{settings.metrics.port}")
proc_name = settings.app.name

workers = settings.workers  # one per core: workers here never block, so more would only take memory
worker_tmp_dir = "/dev/shm" if sys.platform == "linux" else None  # a heartbeat on a slow disk looks like a dead worker
max_requests = settings.server.max_requests
max_requests_jitter = settings.server.max_requests_jitter

timeout = settings.server.timeout_seconds
graceful_timeout = settings.server.graceful_timeout_seconds
keepalive = settings.server.keep_alive_seconds

logconfig_dict = logging_config(settings.log_level, settings.log_format, settings.app.name)
control_socket_disable = True  # it would live in the home folder, which a read-only container does not have


def on_starting(server: Any) -> None:
    fleet.on_starting(server)
    # Not by workers: neither a reload nor the replacement of a worker may fail while the database is away. And in a
    # process of its own: what the master imports, a reload does not import again.
    if code := subprocess.call([sys.executable, "-m", "app", "check", "--lenient"]):
        sys.exit(code)


when_ready = fleet.when_ready
on_reload = fleet.on_reload
nworkers_changed = fleet.nworkers_changed
pre_fork = fleet.pre_fork


def child_exit(server: Any, worker: Any) -> None:
    fleet.child_exit(server, worker)
    fold_dead()


def on_exit(server: Any) -> None:
    remove_folder()
