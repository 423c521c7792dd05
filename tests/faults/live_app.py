"""An app that does next to nothing and is counted like any other, so that its workers start in no time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from plinth.http import MetricsMiddleware, RequestContextMiddleware
from plinth.settings import Settings, load_settings
from plinth.telemetry import configure_logging, sampled

PATH = "/health/live"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with sampled("web", "1.0", 1):
        yield


settings = load_settings(Settings)
configure_logging(settings.log_level, settings.log_format)
app = FastAPI(lifespan=lifespan, openapi_url=None)
app.add_middleware(RequestContextMiddleware, unlogged=[PATH])
app.add_middleware(MetricsMiddleware, settings.metrics)


@app.get(PATH)
async def live() -> str:
    return "live"
