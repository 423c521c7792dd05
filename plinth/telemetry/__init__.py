"""Logs."""

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import configure_logging, logging_config
from plinth.telemetry.settings import LogSettings

__all__ = ["LogSettings", "configure_logging", "logging_config", "request_id"]
