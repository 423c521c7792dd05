"""Gunicorn, started as in production (see tests/faults/serving.py)."""

from contextlib import AbstractContextManager

from plinth.testing.environment import ROOT
from tests.faults.serving import STARTED, STOPPING, Serve, Served, load_on, serve

__all__ = ["STARTED", "STOPPING", "Serve", "Served", "load_on", "own_app", "serve"]


def own_app(serve: Serve, **environment: str) -> AbstractContextManager[Served]:
    """Serve the app with the endpoints of blocking.py."""
    config = ROOT / "gunicorn.conf.py"
    return serve(("gunicorn", "--config", str(config), "tests.plinth.serving.blocking:app"), **environment)
