"""What is counted, and what a scrape shows of it."""

import asyncio
import gc
import gzip
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import REGISTRY, Metric
from pydantic import SecretStr

from app.main import create_app, middleware
from app.settings import Settings
from plinth.cache import CachedRoutes, cached_response, open_cache
from plinth.cache.settings import CacheSettings
from plinth.errors import ConflictError
from plinth.http import FastRoute, MetricsMiddleware, RequestContextMiddleware, exception_handlers
from plinth.telemetry import sampled
from plinth.telemetry.metrics import METRICS, QUEUE_JOBS
from plinth.telemetry.requests import current_record
from plinth.telemetry.settings import MetricsSettings
from plinth.testing.client import Service, serve
from plinth.testing.environment import ROOT, child_environment
from tests.faults.redis_server import wait_until
from tests.plinth.http.apps import answering, client, http_scope, messages


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Counted:
    """What is added to samples of `http_requests_total` from now on, by their labels."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> dict[tuple[str, str, str], float]:
        [family] = [each for each in REGISTRY.collect() if each.name == "http_requests"]
        return {
            (each.labels["method"], each.labels["route"], each.labels["status"]): each.value
            for each in family.samples
            if each.name == "http_requests_total"
        }

    def added(self) -> dict[tuple[str, str, str], float]:
        differences = {key: count - self._before.get(key, 0.0) for key, count in self._now().items()}
        return {key: difference for key, difference in differences.items() if difference}


@pytest.fixture
def app() -> FastAPI:
    settings = Settings(_env_file=None)
    app = FastAPI(
        middleware=[*middleware(settings, CachedRoutes())], exception_handlers=exception_handlers, openapi_url=None
    )
    for name, route_class in (("fast", FastRoute), ("stock", APIRoute)):
        router = APIRouter(prefix=f"/api/{name}", route_class=route_class)

        @router.get("/things/{id}")
        async def get_thing(id: int) -> int:
            return id

        @router.post("/things")
        async def add_thing() -> None:
            raise ConflictError("There is one already.")

        @router.get("/broken")
        async def broken() -> None:
            raise RuntimeError("broken")

        @router.get("/stream")
        async def stream() -> StreamingResponse:
            async def parts() -> AsyncIterator[bytes]:
                yield b"a"
                yield b"b"

            return StreamingResponse(parts())

        app.include_router(router)
    return app


@pytest.mark.parametrize("name", ["fast", "stock"])
@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/api/{name}/things/5", ("GET", "/api/{name}/things/{{id}}", "200")),
        ("HEAD", "/api/{name}/things/5", ("HEAD", "/api/{name}/things/{{id}}", "200")),
        ("GET", "/api/{name}/things/five", ("GET", "/api/{name}/things/{{id}}", "422")),
        ("DELETE", "/api/{name}/things/5", ("DELETE", "/api/{name}/things/{{id}}", "405")),
        ("BREW", "/api/{name}/things/5", ("other", "/api/{name}/things/{{id}}", "405")),
        ("POST", "/api/{name}/things", ("POST", "/api/{name}/things", "409")),
        ("GET", "/api/{name}/broken", ("GET", "/api/{name}/broken", "500")),
        ("GET", "/api/{name}/stream", ("GET", "/api/{name}/stream", "200")),
        ("GET", "/api/{name}/nothing", ("GET", "unknown", "404")),
        ("GET", "/{name}?a=%ff", ("GET", "unknown", "400")),
    ],
    ids=["get", "head", "invalid", "not allowed", "no method", "refused", "broken", "stream", "unknown", "query"],
)
async def test_a_request_is_counted_by_its_route(
    app: FastAPI, name: str, method: str, path: str, labels: tuple[str, str, str]
) -> None:
    expected = (labels[0], labels[1].format(name=name), labels[2])
    before = value("http_request_duration_seconds_count", method=expected[0], route=expected[1])
    counted = Counted()
    async with client(app) as http:
        response = await http.request(method, path.format(name=name))
    assert str(response.status_code) == expected[2]
    assert counted.added() == {expected: 1}
    assert value("http_request_duration_seconds_count", method=expected[0], route=expected[1]) == before + 1


async def test_a_response_from_the_cache_is_counted_like_any_other() -> None:
    routes, loads = CachedRoutes(), 0
    settings = Settings(_env_file=None, cache={"responses": "memory"})

    def cached() -> dict[str, float]:
        results = ("memory", "redis", "miss")
        return {each: value("cache_requests_total", cache="response", result=each) for each in results}

    async with open_cache(settings.cache, None, 1.0) as cache:
        app = FastAPI(middleware=[*middleware(settings, routes)], openapi_url=None)

        @app.get("/cached/{id}")
        @cached_response(ttl=60, tags=[])
        async def get_cached(id: int) -> int:
            nonlocal loads
            loads += 1
            return id

        routes.add_all_of(app)
        before, counted = cached(), Counted()

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | {"state": {"cache": cache}}, receive, send)

        async with client(with_state) as http:
            for _ in range(3):
                assert (await http.get("/cached/5")).json() == 5
    assert loads == 1
    assert counted.added() == {("GET", "/cached/{id}", "200"): 3}
    assert cached() == {"memory": before["memory"] + 2, "redis": before["redis"], "miss": before["miss"] + 1}


async def test_the_statements_of_a_request_are_counted_by_its_route() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        record = current_record.get()
        assert record is not None
        record.route_template = "/counted"
        for _ in range(3):
            record.add_statement("SELECT 1", 0.25)
        await answering(b"")(scope, receive, send)

    def counts() -> list[float]:
        return [value(f"http_request_{name}_total", route="/counted") for name in ("queries", "database_seconds")]

    queries, seconds = counts()
    await messages(RequestContextMiddleware(app), http_scope())
    assert counts() == [queries + 3, seconds + 0.75]


async def test_a_cached_value_is_counted_by_the_level_that_had_it() -> None:
    def counts() -> list[float]:
        return [value("cache_requests_total", cache="value", result=each) for each in ("memory", "redis", "miss")]

    async def load() -> int:
        await asyncio.sleep(0)
        return 1

    async with open_cache(CacheSettings(responses="memory", namespace="test"), None, 1.0) as cache:
        memory, redis, miss = counts()
        # The second joins the load of the first, so that neither level had it for either.
        await asyncio.gather(*(cache.remember("one", 60, load, schema=int) for _ in range(2)))
        assert await cache.remember("one", 60, load, schema=int) == 1
    assert counts() == [memory + 1, redis, miss + 2]


async def test_requests_in_progress_are_reported_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.telemetry.sampling.SECONDS", 0.01)
    is_running, may_end = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        is_running.set()
        await may_end.wait()
        await answering(b"")(scope, receive, send)

    before = value("http_requests_in_progress")
    async with sampled("web", "1.0", 2):
        request = asyncio.create_task(messages(RequestContextMiddleware(app), http_scope()))
        await is_running.wait()
        await wait_until(lambda: value("http_requests_in_progress") == before + 1)
        may_end.set()
        await request
        await wait_until(lambda: value("http_requests_in_progress") == before)


async def test_collections_of_garbage_and_the_lag_of_the_loop_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.telemetry.sampling.SECONDS", 0.01)
    pauses = value("gc_pause_seconds_count", generation="2")
    lags, late = value("event_loop_lag_seconds_count"), value("event_loop_lag_seconds_sum")
    called: list[None] = []
    callbacks = [*gc.callbacks]
    async with sampled("worker", "1.0", 3, lambda: called.append(None)):
        gc.collect()
        await wait_until(lambda: value("gc_pause_seconds_count", generation="2") > pauses)
        time.sleep(0.1)  # noqa: ASYNC251 - the timer of the next sample is late by this
        await wait_until(lambda: value("event_loop_lag_seconds_sum") - late > 0.05)
        assert value("event_loop_lag_seconds_count") > lags
        assert (value("service_cpu_cores"), value("service_processes", kind="worker")) == (3, 1)
        assert value("service_resident_bytes") > 10_000_000
        cpu = value("service_cpu_seconds_total")
    assert len(called) >= 2
    assert value("service_processes", kind="worker") == 0
    assert value("service_cpu_seconds_total") >= cpu > 0
    assert gc.callbacks == callbacks


def test_a_collection_that_begins_while_a_metric_is_locked_ends(tmp_path: Path) -> None:
    """The lock of the files is not reentrant, so a callback that observed would wait for its own thread."""
    script = """
import asyncio, gc, threading
from plinth.telemetry.sampling import sampled
from plinth.telemetry.metrics import REQUESTS

async def main():
    async with sampled("web", "1", 1):
        gc.set_threshold(1, 1, 1)  # collects at nearly every allocation, those under the lock included
        for number in range(2000):
            REQUESTS.labels("GET", str(number), 200).inc()
        gc.set_threshold(0)

asyncio.run(main())
"""
    environment = child_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True, timeout=300)


def scraped(settings: dict[str, Any], **options: Any) -> MetricsMiddleware:
    return MetricsMiddleware(answering(b"the app"), MetricsSettings(**settings), **options)


def served_at(app: Any, port: int) -> Any:
    async def with_port(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"server": ("127.0.0.1", port)}, receive, send)

    return with_port


@pytest.mark.parametrize(
    ("settings", "public", "port", "token", "expected"),
    [
        ({}, True, 80, "", "metrics"),
        ({}, False, 80, "", "the app"),
        ({"token": "secret"}, False, 80, "Bearer secret", "metrics"),
        ({"token": "secret"}, False, 80, "bearer secret", "metrics"),
        ({"token": "secret"}, False, 80, "", "401"),
        ({"token": "secret"}, True, 80, "Bearer wrong", "401"),
        ({"token": "secret"}, False, 80, "Basic secret", "401"),
        ({"token": "secret"}, False, 80, "Bearer secr\u00e9t", "401"),
        ({"port": 9100}, False, 9100, "", "metrics"),
        ({"port": 9100, "token": "secret"}, False, 9100, "", "metrics"),
        ({"port": 9100}, False, 80, "", "the app"),
    ],
)
async def test_who_may_read_metrics(
    settings: dict[str, Any], public: bool, port: int, token: str, expected: str
) -> None:
    headers = [(b"authorization", token.encode("latin-1"))] if token else []
    async with client(served_at(scraped(settings, public=public), port)) as http:
        response = await http.get("/metrics", headers=headers)
        found = "metrics" if "http_requests_in_progress" in response.text else response.text
        assert (str(response.status_code) if response.is_error else found) == expected


@pytest.mark.parametrize(("env", "status"), [("development", 200), ("production", 404)])
async def test_production_has_no_metrics_for_everyone(settings: Settings, env: str, status: int) -> None:
    app = settings.app.model_copy(update={"env": env, "secret_key": SecretStr("k" * 32)})
    async with serve(create_app(settings.model_copy(update={"app": app}))) as service, service.client() as http:
        assert (await http.get("/metrics")).status_code == status


async def test_its_own_port_answers_nothing_else() -> None:
    async with client(served_at(scraped({"port": 9100}), 9100)) as http:
        assert (await http.get("/")).status_code == 404
        answer = await http.post("/metrics")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_scrape_is_compressed_and_in_the_format_that_is_asked_for() -> None:
    app = scraped({}, public=True)
    headers = {"accept": "application/openmetrics-text; version=1.0.0", "accept_encoding": "gzip"}
    start, body = await messages(app, http_scope("/metrics", **headers))
    by_name = dict(start["headers"])
    assert by_name[b"content-encoding"] == b"gzip"
    assert by_name[b"content-type"].startswith(b"application/openmetrics-text")
    assert gzip.decompress(body["body"]).endswith(b"# EOF\n")
    start, body = await messages(app, http_scope("/metrics"))
    assert b"content-encoding" not in dict(start["headers"])
    assert body["body"].startswith(b"# HELP")


@pytest.mark.parametrize("fails", [False, True])
async def test_what_is_fetched_for_a_scrape_is_left_out_if_that_fails(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(state: Any) -> Iterable[Metric]:
        if fails:
            raise OSError(state)
        [jobs] = QUEUE_JOBS.describe()
        jobs.add_sample(jobs.name, {"queue": "mail", "state": "ready"}, 7)
        return [jobs]

    async with client(scraped({}, public=True, fetch=fetch)) as http:
        text = (await http.get("/metrics")).text
    assert ('job_queue_jobs{queue="mail",state="ready"} 7.0' in text) != fails
    assert ("could not be fetched" in caplog.text) == fails
    assert "http_requests_in_progress" in text


async def test_the_app_serves_the_queue_of_the_service(service: Service) -> None:
    async with service.client() as http:
        text = (await http.get("/metrics")).text
    assert text.count("# TYPE job_queue_jobs gauge") == 1
    assert 'service_processes{kind="web"} 1.0' in text
    assert 'database_pool_size{pool="changes"}' in text


def test_the_page_lists_every_metric() -> None:
    page = (ROOT / "docs/plinth/metrics.md").read_text().partition("## What there is")[2]
    named = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert named == [family.name for metric in METRICS for family in metric.describe()]
