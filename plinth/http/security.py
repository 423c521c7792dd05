"""What browsers may do with responses (security headers, CORS), and the redirect to HTTPS.

Starlette's `HTTPSRedirectMiddleware` is not used: it redirects `/a%2Fb` to `/a/b`, keeps the port of plain HTTP, fails
on a query string that is not UTF-8, and has no exemption for probes.
"""

from collections.abc import Awaitable, Collection, Iterable

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.forwarded import route_path
from plinth.http.problems import problem
from plinth.http.responses import raw_path, raw_query
from plinth.http.settings import CorsSettings
from plinth.http.target import host_name

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    # Other sites cannot embed a response; a fetch that CORS allows is not affected.
    (b"cross-origin-resource-policy", b"same-origin"),
]
# The default is for JSON. Documents may show what they contain; a service with secrets in its pages restricts scripts.
_POLICY = b"content-security-policy"
_DOCUMENT_POLICY = (_POLICY, b"base-uri 'self'; object-src 'none'; frame-ancestors 'none'")
_DOCUMENTS = frozenset({b"text/html", b"application/xhtml+xml", b"image/svg+xml", b"application/pdf"})
# One year. Without `includeSubDomains`, which is not this service's decision to make.
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_NAMES = frozenset(name for name, _ in [*_HEADERS, _HSTS])

_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CORS_REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID", "X-Request-Timeout")
_CORS_CONDITIONS = ("If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since")
# Cache-Control and Last-Modified are readable in any case.
_CORS_RESPONSE_HEADERS = (
    "Deprecation",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Sunset",
    "X-Process-Time",
    "X-Request-ID",
)


class SecurityHeadersMiddleware:
    """Adds security headers to every response, except those that the endpoint set itself.

    The Content-Security-Policy allows nothing, or all that HTML, SVG and PDF contain.

    With `hsts`, adds Strict-Transport-Security over HTTPS; RFC 6797 §7.2 forbids it over HTTP.
    """

    def __init__(self, app: ASGIApp, hsts: bool = False) -> None:
        self.app = app
        self.https_headers = [*_HEADERS, _HSTS] if hsts else _HEADERS

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        defaults = self.https_headers if scope.get("scheme") == "https" else _HEADERS

        # Not coroutines: returning the awaitable saves two coroutine calls per message.
        def securing_send(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                present = {name for name, _ in headers}
                added = defaults
                if not _NAMES.isdisjoint(present):
                    added = [header for header in defaults if header[0] not in present]
                if message["status"] == 304:
                    # The policy of a stored response is replaced by that of the 304, which does not know its type.
                    added = [header for header in added if header[0] != _POLICY]
                elif _is_document(headers):
                    added = [_DOCUMENT_POLICY if header[0] == _POLICY else header for header in added]
                message = {**message, "headers": [*headers, *added]}
            return send(message)

        return self.app(scope, receive, securing_send)


class HttpsRedirectMiddleware:
    """Redirects HTTP requests to the same URL over HTTPS with 308, which keeps the method and the body.

    The scheme is the one that the server derived from a trusted proxy's headers. The paths in `exempt` are served over
    HTTP: probes reach the process directly, not through the proxy.
    """

    def __init__(self, app: ASGIApp, exempt: Collection[str] = ()) -> None:
        self.app = app
        self.exempt = exempt

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope.get("scheme") == "https" or route_path(scope) in self.exempt:
            return self.app(scope, receive, send)
        return _redirect_to_https(scope)(scope, receive, send)


def _is_document(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    types = [value for name, value in headers if name == b"content-type"]
    return any(value.partition(b";")[0].strip().lower() in _DOCUMENTS for value in types)


def cors(settings: CorsSettings) -> Middleware:
    """Return Starlette's CORS middleware for the origins in the settings."""
    return Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed,
        allow_credentials=settings.credentials,
        allow_methods=_CORS_METHODS,
        allow_headers=[*_CORS_REQUEST_HEADERS, *_CORS_CONDITIONS],
        expose_headers=_CORS_RESPONSE_HEADERS,
    )


def _redirect_to_https(scope: Scope) -> Response:
    host = host_name(next((value for name, value in scope["headers"] if name == b"host"), b""))
    if host is None:
        return problem(400, "The Host header is missing or invalid.")
    query = raw_query(scope)
    location = f"https://{host}{raw_path(scope)}{'?' if query else ''}{query}"
    return Response(status_code=308, headers={"Location": location})
