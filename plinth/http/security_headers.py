"""An answer tells the browser what it may do with it: nothing, unless the endpoint says otherwise."""

import re
from collections.abc import Awaitable, Collection

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.problems import problem
from plinth.http.responses import sent_path, sent_query

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Keeps other sites from embedding an answer; does not touch a fetch that CORS allows.
    (b"cross-origin-resource-policy", b"same-origin"),
]
# A year. Without `includeSubDomains`: a service cannot promise that for its neighbours.
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_NAMES = frozenset(name for name, _ in [*_HEADERS, _HSTS])
_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?")


class SecurityHeadersMiddleware:
    """Adds the headers that the endpoint did not set itself; with `hsts`, Strict-Transport-Security over https.

    RFC 6797 §7.2 forbids that one over http.
    """

    def __init__(self, app: ASGIApp, hsts: bool = False) -> None:
        self.app = app
        self.https_headers = [*_HEADERS, _HSTS] if hsts else _HEADERS

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        defaults = self.https_headers if scope.get("scheme") == "https" else _HEADERS

        def securing_send(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                own = dict(headers)
                added = defaults if _NAMES.isdisjoint(own) else [each for each in defaults if each[0] not in own]
                message["headers"] = [*headers, *added]
            return send(message)  # not awaited, here and below: that spares every request some coroutines

        return self.app(scope, receive, securing_send)


class HttpsRedirectMiddleware:
    """Answers http with 308, which keeps method and body, to the same address over https.

    The scheme is what the server made of a trusted proxy's headers. Paths in `exempt` are served: a probe asks the
    process directly, past the proxy.
    """

    def __init__(self, app: ASGIApp, exempt: Collection[str] = ()) -> None:
        self.app = app
        self.exempt = exempt

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope.get("scheme") == "https" or scope["path"] in self.exempt:
            return self.app(scope, receive, send)
        return _to_https(scope)(scope, receive, send)


def _to_https(scope: Scope) -> Response:
    sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    host = _HOST.fullmatch(sent)
    if host is None:
        return problem(400, "The Host header is missing, or names no host.")
    query = sent_query(scope)
    location = f"https://{host[1]}{sent_path(scope)}{'?' if query else ''}{query}"
    return Response(status_code=308, headers={"Location": location})
