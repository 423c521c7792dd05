"""Which other origins may call from a browser, and what they may send and read."""

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from plinth.http.settings import CorsSettings

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


def cors(settings: CorsSettings) -> Middleware:
    """Starlette's CORS middleware for the origins in the settings."""
    return Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed,
        allow_credentials=settings.credentials,
        allow_methods=_CORS_METHODS,
        allow_headers=_CORS_SENT,
        expose_headers=_CORS_EXPOSED,
    )
