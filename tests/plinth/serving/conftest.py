"""Gunicorn, started as in production (see tests/faults/serving.py)."""

from tests.faults.serving import STARTED, Serve, Served, load_on, serve

__all__ = ["STARTED", "Serve", "Served", "load_on", "serve"]
