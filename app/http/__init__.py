"""What every request passes on its way in, and every answer on its way out; in which order is stated here alone."""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.config import Settings
from app.http.body_limit import BodyLimitMiddleware, body_limit
from app.http.compression import GZipMiddleware
from app.http.conditional import ConditionalMiddleware, Validators, accepted_versions
from app.http.docs import add_docs
from app.http.errors import QueryEncodingMiddleware, UnhandledErrorMiddleware, exception_handlers
from app.http.problems import document_problems, problem, problem_responses
from app.http.requests import HeadMiddleware, RequestContextMiddleware
from app.http.responses import Links, ORJSONResponse
from app.http.routing import add_short_ways
from app.http.security_headers import HttpsRedirectMiddleware, SecurityHeadersMiddleware

__all__ = [
    "Links",
    "ORJSONResponse",
    "Validators",
    "accepted_versions",
    "add_docs",
    "add_short_ways",
    "body_limit",
    "document_problems",
    "exception_handlers",
    "middleware",
    "problem",
    "problem_responses",
]

# They come every few seconds and straight to the process: not logged, not redirected.
_PROBES = frozenset({"/health/live", "/health/ready"})
_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CORS_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "X-Request-ID",
)
# Browsers show Cache-Control and Last-Modified by themselves.
_CORS_EXPOSED = ("ETag", "Link", "Location", "Retry-After", "X-Process-Time", "X-Request-ID")


def middleware(settings: Settings, *response_cache: Middleware) -> list[Middleware]:
    """The middleware of the app, the outermost first."""
    http, cors = settings.http, settings.cors
    stack = [
        # Outermost: times all the others, and whatever they log or answer has the request's id.
        Middleware(RequestContextMiddleware, unlogged=_PROBES),
        # Outside of whatever may answer by itself.
        Middleware(SecurityHeadersMiddleware, hsts=http.redirect_https),
    ]
    if http.redirect_https:
        # Before anything reads the request.
        stack.append(Middleware(HttpsRedirectMiddleware, exempt=_PROBES))
    if cors.allowed:
        # Answers preflights itself; outside of the errors, so that a browser may read those.
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=cors.allowed,
                allow_credentials=cors.credentials,
                allow_methods=_CORS_METHODS,
                allow_headers=_CORS_SENT,
                expose_headers=_CORS_EXPOSED,
            )
        )
    # Outside of whatever depends on the method or the length of the body.
    stack.append(Middleware(HeadMiddleware))
    # Keeps answers in every encoding, and compares what it has kept.
    stack.extend(response_cache)
    # Outside of whatever makes an answer or compresses it: all of that is still to be compared.
    stack.append(Middleware(ConditionalMiddleware))
    if http.gzip_level:
        # Inside of CORS, which adds to its Vary; outside of the errors, which may be long.
        stack.append(Middleware(GZipMiddleware, level=http.gzip_level, minimum_bytes=http.gzip_minimum_bytes))
    return [
        *stack,
        # Raises where the body is read, which the handlers inside of the app turn into an answer.
        Middleware(BodyLimitMiddleware, max_bytes=http.max_body_bytes),
        Middleware(QueryEncodingMiddleware),
        # Innermost: a 500 passes through all of the above like any other answer.
        Middleware(UnhandledErrorMiddleware),
    ]
