"""The composition root of the process: what the application is made of, and what it holds open."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec

from fastapi import FastAPI
from starlette.middleware import Middleware

from app.cache import CachedRoutes, ResponseCacheMiddleware, open_cache, open_redis
from app.config import Settings, get_settings
from app.database import open_database
from app.dependencies import State
from app.http import add_docs, add_short_ways, document_problems, exception_handlers, middleware
from app.routers import ROUTERS
from app.telemetry.logs import configure_logging

# Without its SDK nobody can be listening, and to look whether somebody is costs more than routing a request.
OPENTELEMETRY = find_spec("opentelemetry.sdk") is not None


@asynccontextmanager
async def lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[State]:
    """Open everything before the first request, close it after the last, in the opposite order."""
    async with (
        open_database(settings.database, settings.app.name) as database,
        open_redis(settings.redis) as redis,
        open_cache(settings.cache, redis, settings.redis.timeout_seconds) as cache,
    ):
        if database.replica is not None:
            database.replica.heard_at = cache.heard_at
        await database.warn_of_too_many_connections(settings.workers)
        yield {"database": database, "redis": redis, "cache": cache}


def response_cache(settings: Settings, routes: CachedRoutes) -> Iterator[Middleware]:
    # Without Redis no worker hears of what another one changes.
    keeps = settings.cache.responses and (settings.redis.url is not None or settings.workers == 1)
    if keeps or not settings.production:
        http = settings.http
        yield Middleware(
            ResponseCacheMiddleware,
            routes=routes,
            gzip_level=http.gzip_level,
            gzip_minimum_bytes=http.gzip_minimum_bytes,
            keep=keeps,
            tell=not settings.production,
        )


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. Connects to nothing: that is the lifespan's work."""
    settings = settings or get_settings()
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    cached_routes = CachedRoutes()
    app = FastAPI(
        title=settings.app.name,
        lifespan=partial(lifespan, settings=settings),
        middleware=middleware(settings, *response_cache(settings, cached_routes)),
        exception_handlers=exception_handlers,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": OPENTELEMETRY, "metrics": OPENTELEMETRY, "logs": OPENTELEMETRY},
    )
    app.state.draining = False
    app.state.require_if_match = settings.http.require_if_match
    for router in ROUTERS:
        app.include_router(router)
    cached_routes.add_all_of(app)
    add_short_ways(app)
    document_problems(app)
    if settings.docs_enabled:
        add_docs(app)
    return app


app = create_app()
