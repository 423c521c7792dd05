"""Gunicorn, started as in production (see tests/faults/serving.py)."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from plinth.testing.environment import ROOT
from tests.faults.serving import STARTED, STOPPING, Serve, Served, load_on
from tests.faults.serving import serve as app_serve

__all__ = ["STARTED", "STOPPING", "Serve", "Served", "app_serve", "load_on", "own_app", "serve"]

UNCHECKED = "\non_starting = fleet.on_starting\n"


@pytest.fixture
def serve(app_serve: Serve, tmp_path: Path) -> Serve:
    """Starts what `app serve` becomes, with Gunicorn's arguments and lines to add to its configuration.

    The command, and `app check` before the first worker, would import everything once more each.
    """

    def served(*arguments: str, workers: int = 1, hook: str = "", **environment: str) -> AbstractContextManager[Served]:
        config = tmp_path / "gunicorn.conf.py"
        config.write_text((ROOT / "gunicorn.conf.py").read_text() + UNCHECKED + hook)
        return app_serve(("gunicorn", "--config", str(config), *arguments), workers, **environment)

    return served


def own_app(serve: Serve, **environment: str) -> AbstractContextManager[Served]:
    """Serve the app with the endpoints of blocking.py."""
    return serve("tests.plinth.serving.blocking:app", **environment)
