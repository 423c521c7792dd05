"""Logs, metrics, traces, errors and profiles."""

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import configure_logging, logging_config
from plinth.telemetry.profiling import ProfileMiddleware
from plinth.telemetry.sampling import sampled
from plinth.telemetry.sentry import configure_sentry
from plinth.telemetry.settings import LogSettings
from plinth.telemetry.tracing import fastapi_telemetry, open_tracing

__all__ = [
    "LogSettings",
    "ProfileMiddleware",
    "configure_logging",
    "configure_sentry",
    "fastapi_telemetry",
    "logging_config",
    "open_tracing",
    "request_id",
    "sampled",
]
