"""Logs."""

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import configure_logging
from plinth.telemetry.settings import LogSettings

__all__ = ["LogSettings", "configure_logging", "request_id"]
