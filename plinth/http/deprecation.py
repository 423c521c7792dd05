"""Deprecated routes: what their responses say (RFC 9745, RFC 8594), and how the OpenAPI document shows them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Any, TypeVar

from plinth.http.conditional import Headers

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Deprecation:
    headers: Headers
    documented: dict[str, Any]
    """Members of the OpenAPI operation."""


def deprecated_route(
    *, since: date, sunset: date | None = None, link: str | None = None
) -> Callable[[Endpoint], Endpoint]:
    """Add `Deprecation` to every response of an endpoint, errors too, and `deprecated: true` to its OpenAPI operation.

    `sunset` is the day from which the route may be gone, `link` the URL of a page that says what to use instead. Days
    begin at midnight UTC. Every route with this endpoint is deprecated, so a second version needs one of its own.
    """
    if sunset is not None and sunset < since:
        raise ValueError(f"The sunset {sunset} is before {since}, when the route is deprecated.")
    if link is not None and not re.fullmatch(r"[!#-;=?-~]+", link):
        raise ValueError(f"The link {link!r} is not a URL.")
    headers = [(b"deprecation", b"@%d" % _midnight(since).timestamp())]
    if sunset is not None:
        headers.append((b"sunset", format_datetime(_midnight(sunset), usegmt=True).encode()))
    if link is not None:
        headers.append((b"link", f'<{link}>; rel="deprecation"'.encode()))
    documented = {"deprecated": True} | ({"x-sunset": sunset.isoformat()} if sunset else {})

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, "deprecation", Deprecation(headers, documented))  # noqa: B010 - of any callable
        return endpoint

    return mark


def deprecation_of(endpoint: Any) -> Deprecation | None:
    return getattr(endpoint, "deprecation", None)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
