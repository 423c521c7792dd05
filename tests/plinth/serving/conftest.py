"""Gunicorn, started as in production (see tests/faults/serving.py)."""

from tests.faults.serving import STARTED, STOPPING, Serve, Served, load_on, serve

__all__ = ["STARTED", "STOPPING", "Serve", "Served", "load_on", "serve"]
