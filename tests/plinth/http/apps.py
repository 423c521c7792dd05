"""Small apps, called in process or over a real socket."""

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.main import middleware
from app.settings import Settings
from plinth.cache import CachedRoutes
from plinth.http import exception_handlers

JSON = {"Content-Type": "application/json"}


def build(
    http: dict[str, Any] | None = None,
    cors: dict[str, Any] | None = None,
    responses: dict[int | str, dict[str, Any]] | None = None,
) -> FastAPI:
    """Build an app with everything that plinth.http offers, and without routes."""
    settings = Settings(_env_file=None, http=http or {}, cors=cors or {})
    return FastAPI(
        middleware=[*middleware(settings, CachedRoutes())],
        exception_handlers=exception_handlers,
        responses=responses,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )


def client(app: ASGIApp, base_url: str = "http://test") -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url=base_url)


def http_scope(path: str = "/", method: str = "GET", **headers: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def messages(app: ASGIApp, scope: Scope, receive: Receive = no_body) -> list[Message]:
    """Call the app and return the messages that it sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def answering(
    *bodies: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
    """Return an ASGI app that always sends the same response, one message per body."""
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for position, body in enumerate(bodies, start=1):
            await send({"type": "http.response.body", "body": body, "more_body": position < len(bodies)})

    return app


class RecordingHandler(logging.Handler):
    """Keeps records. With a formatter, `record.text` is the formatted line."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.formatter = formatter
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.text = self.formatter.format(record) if self.formatter else ""
        self.records.append(record)


@contextmanager
def recorded(name: str = "app.access", formatter: logging.Formatter | None = None) -> Iterator[list[logging.LogRecord]]:
    """Yield the records of a logger from INFO on, as they come."""
    handler, logger = RecordingHandler(formatter), logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def fields(record: logging.LogRecord) -> dict[str, object]:
    assert isinstance(record.args, dict)
    return record.args
