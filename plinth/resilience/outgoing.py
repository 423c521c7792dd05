"""Calls to other servers: a stock httpx client whose transport retries within a budget, and has a breaker per host."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from time import monotonic
from typing import Any

import httpx
from cachetools import LRUCache

from plinth.errors import DeadlineError, UnavailableError
from plinth.resilience.deadline import remaining
from plinth.resilience.settings import OutgoingSettings
from plinth.telemetry.context import request_id

IDEMPOTENT = {"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"}
FAILED = {0, 502, 503, 504}  # 0 is no response
RETRIED = FAILED | {429}
# Without PoolTimeout, which is no failure of the host.
TRANSIENT = httpx.ConnectTimeout, httpx.ReadTimeout, httpx.WriteTimeout, httpx.NetworkError, httpx.RemoteProtocolError
BACKOFF_SECONDS, MOST_DOUBLINGS = 0.1, 5
MOST_SAVED, SAVED_PER_CALL = 10.0, 0.1  # retries
MOST_HOSTS = 1000


class HostUnavailableError(UnavailableError, httpx.TransportError):
    """The breaker is open. Code that handles httpx's errors handles this one too; unhandled, it becomes a 503."""


class Host:
    def __init__(self, name: str, settings: OutgoingSettings) -> None:
        self.name, self.settings = name, settings
        self.failures, self.next_probe_at = 0, 0.0  # in a row; of the monotonic clock
        self.saved = MOST_SAVED

    def admit(self) -> None:
        """Raise HostUnavailableError while the breaker is open, but for one probe each `breaker_seconds`."""
        if self.failures < self.settings.breaker_failures:
            return
        if (seconds := self.next_probe_at - monotonic()) > 0:
            error = HostUnavailableError(f"{self.name} does not respond. Try again later.")
            error.retry_after_seconds = max(1, round(seconds))
            raise error
        self.next_probe_at = monotonic() + self.settings.breaker_seconds

    def note(self, *, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0
        self.next_probe_at = monotonic() + self.settings.breaker_seconds

    def may_retry(self) -> bool:
        if self.saved < 1 or self.failures >= self.settings.breaker_failures:
            return False
        self.saved -= 1
        return True


class OutgoingTransport(httpx.AsyncBaseTransport):
    def __init__(self, transport: httpx.AsyncBaseTransport, settings: OutgoingSettings) -> None:
        self._transport, self._settings = transport, settings
        self._hosts: LRUCache[str, Host] = LRUCache(MOST_HOSTS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.netloc.decode()
        host = self._hosts.setdefault(name, Host(name, self._settings))
        host.saved = min(MOST_SAVED, host.saved + SAVED_PER_CALL)
        if (id := request_id.get()) is not None:
            request.headers.setdefault("X-Request-ID", id)
        timeouts = request.extensions.get("timeout", {})
        retries = self._settings.retries if _is_repeatable(request) else 0
        for attempt in count():
            host.admit()
            request.extensions["timeout"] = _within_deadline(timeouts)
            result: httpx.Response | httpx.TransportError
            try:
                result = await self._transport.handle_async_request(request)
            except TRANSIENT as error:
                if remaining() == 0.0:
                    raise DeadlineError from error
                result = error
            status = result.status_code if isinstance(result, httpx.Response) else 0
            host.note(failed=status in FAILED)
            seconds, left = _wait_seconds(result, attempt), remaining()
            too_late = seconds >= (self._settings.timeout_seconds if left is None else left)
            if status not in RETRIED or attempt == retries or too_late or not host.may_retry():
                break
            if isinstance(result, httpx.Response):
                await result.aclose()
            await asyncio.sleep(seconds)
        if isinstance(result, httpx.Response):
            return result
        raise result

    async def aclose(self) -> None:
        await self._transport.aclose()


def _is_repeatable(request: httpx.Request) -> bool:
    """A repetition changes nothing more, and its body is still there."""
    is_harmless = request.method in IDEMPOTENT or "Idempotency-Key" in request.headers
    return is_harmless and isinstance(request.stream, httpx.ByteStream)


def _within_deadline(timeouts: dict[str, Any]) -> dict[str, Any]:
    if (left := remaining()) is None:
        return timeouts
    if left == 0.0:
        raise DeadlineError
    given = {name: timeouts.get(name) for name in ("connect", "read", "write", "pool")}
    return {name: left if seconds is None else min(seconds, left) for name, seconds in given.items()}


def _wait_seconds(result: httpx.Response | httpx.TransportError, attempt: int) -> float:
    """What Retry-After says, as seconds or a date, or else a random time (https://www.rfc-editor.org/rfc/rfc9110#10.2.3)."""
    text = result.headers.get("Retry-After", "") if isinstance(result, httpx.Response) else ""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # TypeError: without a zone
        return random.uniform(0.5, 1) * BACKOFF_SECONDS * float(2 ** min(attempt, MOST_DOUBLINGS))


@asynccontextmanager
async def open_outgoing(settings: OutgoingSettings) -> AsyncIterator[httpx.AsyncClient]:
    """The client of the process. Like httpx's own, it follows no redirects unless a call asks for it."""
    connecting = settings.connect_timeout_seconds
    timeout = httpx.Timeout(settings.timeout_seconds, connect=connecting, pool=connecting)
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=settings.max_connections))
    async with httpx.AsyncClient(transport=OutgoingTransport(transport, settings), timeout=timeout) as client:
        yield client
