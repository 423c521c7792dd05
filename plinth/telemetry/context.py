"""The context of a request."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request in progress, which is a field of every record that is logged."""
