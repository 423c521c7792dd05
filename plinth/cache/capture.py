"""A load of the response cache: runs the app on a request that has nothing of the caller, and captures the response."""

import asyncio
import logging
from contextvars import Context
from random import getrandbits
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context as OpenTelemetryContext
from opentelemetry.context import attach
from starlette.types import ASGIApp, Message, Scope, Send

from plinth.cache import cached
from plinth.cache.entries import Deliver, Loaded
from plinth.cache.inputs import spelled
from plinth.cache.routes import Hit
from plinth.http.conditional import Headers
from plinth.telemetry.context import request_id
from plinth.telemetry.requests import RequestRecord, current_record

log = logging.getLogger(__name__)

_HOST = "localhost"


class Unshareable(Exception):  # noqa: N818 - not an error
    """The response may be sent to one client only."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        """Why that is so of every response of the route; empty where it may be so of this one alone."""


def scope_for_everyone(hit: Hit, scope: Scope, state: dict[str, Any]) -> Scope:
    """A request for the same resource by no one, built from scratch: what is left out here cannot be leaked."""
    return {
        "type": "http",
        "asgi": scope.get("asgi", {}),
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": (_HOST, 80),
        "client": None,
        "root_path": hit.root_path,
        "path": hit.path,
        "raw_path": spelled(hit.path),
        "query_string": hit.query.encode(),
        "headers": [(b"host", _HOST.encode())],
        "app": scope["app"],
        "state": {**state},
    }


def context_for_everyone(record: RequestRecord) -> Context:
    """Without the context variables that middleware has set for the caller; an id and a record of its own."""
    context = Context()
    context.run(request_id.set, f"{getrandbits(64):016x}")
    context.run(current_record.set, record)
    if (span := trace.get_current_span()).get_span_context().is_valid:  # the load is part of this trace
        context.run(attach, trace.set_span_in_context(span, OpenTelemetryContext()))
    return context


class Load:
    """Loads one response for all who wait for it. A stream goes to the request whose load it was, as it comes."""

    def __init__(self, app: ASGIApp, scope: Scope, hit: Hit, gzip: tuple[int, int]) -> None:
        self.ran = False
        self._app, self._scope, self._hit, self._gzip = app, scope, hit, gzip
        self._messages: list[Message] = []
        self._stream: asyncio.Queue[Message | BaseException] = asyncio.Queue(1)
        self.is_stream = False
        """Whether this request's load is a stream, which `relay` sends on."""
        self._abandoned = False
        self._task: asyncio.Task[Any] | None = None
        self._body_was_read = False
        self._deliver: Deliver
        self._delivered = False

    async def __call__(self, deliver: Deliver) -> None:
        """Deliver the response once it is complete: background tasks and the ends of dependencies come after it."""
        self.ran, self._deliver, self._task = True, deliver, asyncio.current_task()
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if self.is_stream:
                await self._put(error)
            elif not self._delivered:
                raise
            else:
                log.exception("Error after the response of %s", self._hit.route.path)
        if not self._delivered:
            deliver(Unshareable())

    async def relay(self, send: Send) -> None:
        """Send the stream on."""
        more = True
        try:
            while more:
                message = await self._stream.get()
                if isinstance(message, BaseException):
                    raise message
                await send(message)
                more = message["type"] == "http.response.start" or message.get("more_body", False)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """The client has disconnected, so a stream ends. Other responses are still for those who wait for them."""
        self._abandoned = True
        if self.is_stream and self._task is not None:
            self._task.cancel()

    def _loaded(self, status: int, headers: Headers, body: bytes) -> Loaded:
        rule = self._hit.route.rule
        if reason := self._why_unshareable(status, headers):
            raise Unshareable(reason)
        if status >= 500:  # the same for all who waited, and loaded again for the next
            return Loaded(b"", 0.0, cached.build(status, headers, body, 0, 0))
        if status == 200 and not _is_private(headers):
            response = cached.build(status, headers, body, *self._gzip)
            return Loaded(cached.pack(response), rule.ttl, response)
        missing = cached.build_not_found(headers, body) if status == 404 and rule.missing_ttl else None
        if missing is None or _is_private(headers):
            raise Unshareable
        return Loaded(cached.pack(missing), rule.missing_ttl, missing)

    def _why_unshareable(self, status: int, headers: Headers) -> str:
        """Raises Unshareable for a response of this request that another one may not get."""
        endpoint = self._scope.get("endpoint")
        if endpoint is None and status != 200:
            raise Unshareable  # a middleware refused a request by no one
        if endpoint is not self._hit.route.endpoint:
            return "another route or a middleware answers, or a middleware copies the scope"
        for name, value in headers:
            if name == b"set-cookie":
                return "its response sets a cookie"
            if name == b"vary" and {each.strip().lower() for each in value.split(b",")} - {b"", b"accept-encoding"}:
                return "its response varies by a header"
        return ""

    async def _receive(self) -> Message:
        """A GET without a body, of a client that does not disconnect: a stream that is not needed is cancelled."""
        if self._body_was_read:
            await asyncio.get_running_loop().create_future()
        self._body_was_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Message) -> None:
        if self.is_stream:
            await self._put(message)
            return
        self._messages.append(message)
        whole = message["type"] in {"http.response.start", "http.response.body"} and not message.get("more_body")
        if self._delivered or (whole and len(self._messages) < 2):
            return
        self._delivered = True
        if not whole:
            self.is_stream = True
            self._deliver(Unshareable("its response is a stream"))
            for each in self._messages:
                await self._put(each)
            return
        start, end = self._messages
        headers = [(name.lower(), value) for name, value in start.get("headers", ())]
        try:
            self._deliver(self._loaded(start["status"], headers, end.get("body", b"")))
        except Unshareable as unshareable:
            self._deliver(unshareable)

    async def _put(self, message: Message | BaseException) -> None:
        if self._abandoned:
            raise OSError("The client is gone")
        await self._stream.put(message)


def _is_private(headers: Headers) -> bool:
    directives = b",".join([value.lower() for name, value in headers if name == b"cache-control"])
    return b"private" in directives or b"no-store" in directives
