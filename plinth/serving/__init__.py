"""Gunicorn workers that start, reload and stop without failing a request."""

from plinth.serving.fleet import fleet
from plinth.serving.settings import ServerSettings
from plinth.serving.stopping import on_stop

is_draining = fleet.is_draining

__all__ = ["ServerSettings", "fleet", "is_draining", "on_stop"]
