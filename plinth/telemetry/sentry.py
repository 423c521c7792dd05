"""Errors to Sentry: what is logged at ERROR or above is an event, and nothing else is. Needs the extra `sentry`.

Its integrations of frameworks are not used: an unhandled error and a job that is given up are logged once, so there is
one event of each, and a request costs nothing. Traces reach Sentry as any collector, by OTLP.
"""

from typing import TYPE_CHECKING

from opentelemetry import trace

from plinth.telemetry.context import request_id
from plinth.telemetry.requests import current_record
from plinth.telemetry.settings import SentrySettings

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

DATABASE_MODULES = "asyncpg", "sqlalchemy"


def configure_sentry(settings: SentrySettings, environment: str, release: str) -> None:
    """Report errors to SENTRY_DSN, if it is set. Call it once in each process, after `configure_logging`."""
    if settings.dsn is None:
        return
    import sentry_sdk
    from sentry_sdk.integrations.atexit import AtexitIntegration
    from sentry_sdk.integrations.dedupe import DedupeIntegration
    from sentry_sdk.integrations.excepthook import ExcepthookIntegration
    from sentry_sdk.integrations.logging import LoggingIntegration

    sentry_sdk.init(
        dsn=settings.dsn.get_secret_value(),
        environment=environment,
        release=release,
        before_send=complete,
        send_default_pii=False,
        include_local_variables=False,  # among them are passwords and tokens
        max_breadcrumbs=0,  # they would be those of all requests in progress
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[
            LoggingIntegration(level=None, sentry_logs_level=None),
            DedupeIntegration(),
            ExcepthookIntegration(),
            AtexitIntegration(callback=lambda pending, timeout: None),  # sends what is left, and prints nothing
        ],
    )


def complete(event: "Event", hint: "Hint") -> "Event":
    """Add what finds the log lines and the trace of an event, and remove what may be a client's data."""
    event.pop("request", None)  # its headers, cookies and body
    event.pop("user", None)
    record = current_record.get()
    tags = {"request_id": request_id.get(), "route": record and record.route, "job": record and record.job}
    event["tags"] = {**event.get("tags", {}), **{name: value for name, value in tags.items() if value}}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        ids: dict[str, object] = {
            "trace_id": trace.format_trace_id(span.trace_id),
            "span_id": trace.format_span_id(span.span_id),
        }
        event["contexts"] = {**event.get("contexts", {}), "trace": ids}
    for exception in event.get("exception", {}).get("values", ()):
        if str(exception.get("module")).startswith(DATABASE_MODULES):  # PostgreSQL quotes values in its messages
            exception["value"] = "The message is in the log."
    return event
