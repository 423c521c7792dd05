"""The SDK's side of tracing: what is instrumented, and how spans reach the collector. Needs the extra `tracing`.

The thread of the SDK exports in the background. While the collector is away, spans are dropped and requests are not
affected. No value leaves the process: statements have placeholders, URLs lose their query, and of exceptions only the
type is sent, because the message of PostgreSQL's quotes values. The log has them.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from threading import Thread

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status

log = logging.getLogger(__name__)

INSTRUMENTORS = AsyncPGInstrumentor, RedisInstrumentor, HTTPXClientInstrumentor
FLUSH_SECONDS = 3.0
"""How long the end of a process waits for the collector."""


class Exporter(SpanExporter):
    """OTLP over HTTP, without values, and with one warning for a collector that is away."""

    def __init__(self) -> None:
        self._otlp = OTLPSpanExporter()
        self._is_away = False
        # They would log each attempt to reach the collector, and each span that is dropped.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # A statement or a call that belongs to no request and no job is a heartbeat, a probe or a look into the queue.
        kept = [without_values(span) for span in spans if span.parent or span.kind is not SpanKind.CLIENT]
        result = self._otlp.export(kept) if kept else SpanExportResult.SUCCESS
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning("The collector takes no traces, so they are dropped until it does")
        elif self._is_away and not is_away and kept:
            log.info("The collector takes traces again")
        self._is_away = is_away if kept else self._is_away
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]


def without_values(span: ReadableSpan) -> ReadableSpan:
    attributes = dict(span.attributes or {})
    if not span.events and not attributes.keys() & {"url.query", "url.full"}:
        return span
    if "url.query" in attributes:
        attributes["url.query"] = "REDACTED"
    if "url.full" in attributes:
        attributes["url.full"] = str(attributes["url.full"]).partition("?")[0]
    events = [_without_message(event) if event.name == "exception" else event for event in span.events]
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code) if events != [*span.events] else span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_message(event: Event) -> Event:
    return Event(event.name, {"exception.type": (event.attributes or {}).get("exception.type", "")}, event.timestamp)


def start(service: str, version: str) -> tuple[BatchSpanProcessor, Exporter]:
    """Add an exporter to the provider of the process, which is made if there is none, and instrument the libraries."""
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")  # the stable names, which FastAPI uses
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        own = Resource({SERVICE_NAME: service, SERVICE_VERSION: version}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=Resource.create(own.attributes), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = Exporter()
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    for instrumentor in INSTRUMENTORS:
        instrumentor().instrument()
    return processor, exporter


async def stop(processor: BatchSpanProcessor, exporter: Exporter) -> None:
    """Send what has not been sent. A collector that does not answer delays the end by no more than FLUSH_SECONDS."""
    for instrumentor in INSTRUMENTORS:
        instrumentor().uninstrument()
    flush = Thread(target=processor.shutdown, daemon=True)
    flush.start()
    await asyncio.to_thread(flush.join, FLUSH_SECONDS)
    exporter.shutdown()
