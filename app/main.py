"""The composition root of the process: routers, middleware in order, and what the lifespan opens."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from app.dependencies import State, WorkerState
from app.routers import DOCS_ROUTERS, ROUTERS
from app.settings import Settings, get_settings
from app.tasks import SCHEDULES, TASKS
from plinth.cache import CachedRoutes, ResponseCacheMiddleware, open_cache, open_redis
from plinth.database import open_database
from plinth.http import (
    ConditionalMiddleware,
    DeadlineMiddleware,
    ForwardedMiddleware,
    GZipMiddleware,
    HeadMiddleware,
    HttpsRedirectMiddleware,
    JsonDepthMiddleware,
    MetricsMiddleware,
    QueryEncodingMiddleware,
    RequestContextMiddleware,
    RequestTargetMiddleware,
    SecurityHeadersMiddleware,
    SheddingMiddleware,
    UnhandledErrorMiddleware,
    ValidatorsMiddleware,
    add_docs,
    cors,
    exception_handlers,
)
from plinth.jobs import Worker, open_mailer, queue_metrics
from plinth.resilience import open_outgoing, open_processes
from plinth.security import DiscoveredKeys, LimitMiddleware, Limits, Tokens, open_passwords
from plinth.serving import on_stop
from plinth.storage import open_storage
from plinth.telemetry import (
    ProfileMiddleware,
    configure_logging,
    configure_sentry,
    fastapi_telemetry,
    open_tracing,
    sampled,
)

# Probes are frequent and bypass the proxy: they are neither logged, traced nor redirected.
PROBES = frozenset({"/health/live", "/health/ready"})
MAILS = Path(__file__).parent / "mails"


@asynccontextmanager
async def lifespan(app: FastAPI | None, settings: Settings) -> AsyncIterator[State]:
    """Open everything before the first request or job, close it after the last, in the opposite order."""
    redis_seconds, namespace = settings.redis.timeout_seconds, settings.cache.namespace
    async with (
        open_tracing(settings.app.identifier, settings.app.version),
        open_database(settings.database if app else settings.database.for_jobs, settings.app.name) as database,
        on_stop(database.notifications.stop),  # which ends the streams
        open_redis(settings.redis) as redis,
        open_cache(settings.cache, redis, redis_seconds, listens=database.replica is not None) as cache,
        open_outgoing(settings.outgoing) as outgoing,
        open_storage(settings.storage) as storage,
        open_processes(settings.server.cpu_processes) as processes,
        open_passwords(settings.auth.most_waiting) as passwords,
        sampled("web" if app else "worker", settings.app.version, settings.cores, database.sample),
    ):
        if database.replica is not None:
            database.replica.heard_at = cache.last_invalidation_at
        others = database.unpooled_connections if app else 1  # the one for the queue
        await database.warn_of_too_many_connections(settings.workers if app else settings.job.processes, others)
        limits = Limits(
            settings.limit, redis, namespace=namespace, workers=settings.workers, timeout_seconds=redis_seconds
        )
        trusted = settings.auth.trusted_issuer
        remote = DiscoveredKeys(trusted, outgoing) if trusted else None
        yield {
            "database": database,
            "redis": redis,
            "cache": cache,
            "outgoing": outgoing,
            "storage": storage,
            "processes": processes,
            "auth": settings.auth,
            "tokens": Tokens(settings.auth, settings.app.signing_key, settings.app.identifier, remote),
            "passwords": passwords,
            "public_url": settings.app.public_url.rstrip("/"),
            "limits": limits,
        }


@asynccontextmanager
async def worker_lifespan(settings: Settings) -> AsyncIterator[WorkerState]:
    async with lifespan(None, settings) as state, open_mailer(settings.mail, MAILS) as mailer:
        yield {**state, "mailer": mailer, "reports_to": settings.app.reports_to}


def middleware(settings: Settings, cached_routes: CachedRoutes) -> Iterator[Middleware]:
    """The middleware of the app in the order in which a request passes through it, the outermost first."""
    http = settings.http
    # Outermost: scrapes are neither logged nor counted.
    yield Middleware(
        MetricsMiddleware,
        settings.metrics,
        public=not settings.production,
        fetch=lambda state: queue_metrics(state["database"].reads),
    )
    # All others see the client's address, scheme and path as it sent them to the proxy.
    yield Middleware(ForwardedMiddleware, trusted=http.trusted_proxies, root_path=http.root_path)
    if settings.server.shed:
        # Outside of all that costs time: what it refuses is neither logged nor counted against a limit.
        yield Middleware(
            SheddingMiddleware, settings.server.queue_seconds, cached_routes.has_in_memory, PROBES, ("/export",)
        )
    # It times all others, and everything that they log or send carries the request id.
    yield Middleware(RequestContextMiddleware, unlogged=PROBES, log=settings.log, debug_queries=not settings.production)
    yield Middleware(SecurityHeadersMiddleware, hsts=http.redirect_https)
    if settings.profile.requests:
        # Outside of all that takes time, and inside of the headers that its pages need.
        yield Middleware(ProfileMiddleware, settings=settings.profile, seconds=http.deadline_seconds or 30)
    yield Middleware(RequestTargetMiddleware, allowed_hosts=http.hosts)
    if http.redirect_https:
        yield Middleware(HttpsRedirectMiddleware, exempt=PROBES)
    if settings.cors.allowed:
        # Outside of the errors, so that a browser may read those.
        yield cors(settings.cors)
    # Outside of the cache and of routing, so that what it refuses costs next to nothing.
    yield Middleware(LimitMiddleware, limit=settings.limit.reads, workers=settings.workers, exempt=PROBES)
    yield Middleware(HeadMiddleware)
    # Without Redis, a process receives no invalidations of others, and cannot know whether there are any.
    cached = settings.cache.responses == "memory" or (settings.cache.responses and settings.redis.url is not None)
    if cached or not settings.production:
        yield Middleware(
            ResponseCacheMiddleware,
            routes=cached_routes,
            gzip_level=http.gzip_level,
            gzip_minimum_bytes=http.gzip_minimum_bytes,
            enabled=cached,
            debug_header=not settings.production,
            deadline_max_seconds=http.deadline_max_seconds,
        )
    # Outside of gzip: each encoding has an ETag of its own, and a 304 carries the right one.
    yield Middleware(ConditionalMiddleware)
    if http.gzip_level:
        yield Middleware(GZipMiddleware, minimum_size=http.gzip_minimum_bytes, compresslevel=http.gzip_level)
    # Inside of gzip: the ETag is a hash of the uncompressed body.
    yield Middleware(ValidatorsMiddleware)
    yield Middleware(QueryEncodingMiddleware)
    # Inside of the response cache, whose hits need none: a load has one of its own.
    yield Middleware(DeadlineMiddleware, seconds=http.deadline_seconds, max_seconds=http.deadline_max_seconds)
    # Its responses pass through all of the above, like any other.
    yield Middleware(UnhandledErrorMiddleware)
    # Routers and routes override it by `max_body_size=`. FastAPI's own argument would act outside of all the above.
    yield Middleware(RequestBodyLimitMiddleware, max_body_size=http.max_body_bytes)
    # Innermost: what it raises while a body is read becomes a problem in the app itself.
    yield Middleware(JsonDepthMiddleware)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. It connects to nothing until its lifespan starts."""
    settings = settings or get_settings()
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    configure_sentry(settings.sentry, settings.app.env, settings.app.version)
    cached_routes = CachedRoutes()
    app = FastAPI(
        title=settings.app.name,
        version=settings.app.version,
        description=settings.app.description,
        lifespan=partial(lifespan, settings=settings),
        middleware=[*middleware(settings, cached_routes)],
        exception_handlers=exception_handlers,
        # Otherwise FastAPI overwrites models named `ValidationError`; `openapi` writes the problem in its place.
        responses={422: {"description": "Validation Error"}},
        openapi_url=None,  # served by add_docs, with the pages
        redirect_slashes=False,
        telemetry=fastapi_telemetry(untraced=PROBES),
    )
    app.state.require_if_match = settings.http.require_if_match
    for router in (*ROUTERS, *(DOCS_ROUTERS if settings.docs_enabled else ())):
        app.include_router(router)
    if settings.docs_enabled:
        add_docs(app)
    cached_routes.add_all_of(app)
    return app


def create_worker(settings: Settings) -> Worker[WorkerState]:
    """Build what `app worker` runs: a process beside those of the application, or several."""
    configure_logging(settings.log_level, settings.log_format, settings.app.name)
    configure_sentry(settings.sentry, settings.app.env, settings.app.version)
    return Worker(settings.job, settings.database, TASKS, SCHEDULES, partial(worker_lifespan, settings))


app = create_app()
