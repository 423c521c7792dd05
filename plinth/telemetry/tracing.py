"""Traces by OpenTelemetry: spans of requests are FastAPI's, those of statements and calls are the instrumentors'.

OpenTelemetry's own variables configure all of it. Where none of them names a collector, its SDK is not imported, and
nothing is traced.
"""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace

from plinth.telemetry.requests import RequestRecord

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig  # Gunicorn's master imports this module, and needs no FastAPI

ENDPOINTS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def exports_traces() -> bool:
    """Whether the environment names a collector, and does not switch traces off."""
    given = os.environ.get
    is_off = given("OTEL_SDK_DISABLED", "").lower() == "true" or given("OTEL_TRACES_EXPORTER") == "none"
    return not is_off and any(map(given, ENDPOINTS))


def fastapi_telemetry(untraced: Collection[str]) -> "TelemetryConfig":
    """Return FastAPI's `telemetry` argument: a span for each request, but for those of the paths in `untraced`."""
    return {
        "tracing": exports_traces(),
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in untraced,
    }


def complete_span(span: trace.Span, method: str, record: RequestRecord, request_id: str) -> None:
    """Add to the span of a request what FastAPI does not know: its id, and the route where the cache answers."""
    span.set_attribute("request.id", request_id)
    if record.cache is not None and record.route is not None:
        span.set_attribute("http.route", record.route)
        span.update_name(f"{method} {record.route}")


@asynccontextmanager
async def open_tracing(service: str, version: str) -> AsyncIterator[None]:
    """Trace for the length of a block, if a collector is named, and send the last spans at its end.

    It starts a thread, so open it in the process that serves, not before a fork. OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES replace the name and the version.
    """
    if not exports_traces():
        yield
        return
    from plinth.telemetry.exporting import start, stop

    exporting = start(service, version)
    try:
        yield
    finally:
        await stop(*exporting)
