"""Traces, as a collector receives them from the processes of a service."""

import re
import socket
import subprocess
import sys
from contextlib import closing
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr

from plinth.telemetry.settings import ProfileSettings, SentrySettings, missing_extras
from plinth.telemetry.tracing import ENDPOINTS, fastapi_telemetry
from plinth.testing.environment import ROOT, child_environment
from tests.faults.serving import Served
from tests.plinth.telemetry.conftest import Start
from tests.plinth.telemetry.receiver import Receiver
from tests.plinth.telemetry.traced import SECRET

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, CLIENT, CONSUMER = 2, 3, 5
ERROR = 2


def get(served: Served, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"{served.address}{path}", headers=headers, timeout=60)


def traceparent(flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}


def test_one_trace_leads_from_the_client_through_all_that_is_called_into_the_job(
    start: Start, start_worker: Start, receiver: Receiver
) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.address, "APP_NAME": "Traced API", "APP_VERSION": "1.2.3"}
    with start(**endpoint) as served, start_worker(**endpoint):
        url = f"/traced/numbers/7?job=call&token={SECRET}"
        response = get(served, url, **traceparent(), **{"X-Request-ID": "r-1"})
        assert response.status_code == 200, response.text
        request = receiver.span("GET /traced/numbers/{number}")
        sent = "SELECT $1::INTEGER + $2::INTEGER AS number /*route='/traced/numbers/{number}'*/"
        query = receiver.span("SELECT", **{"db.query.text": sent})
        command = receiver.span("GET", **{"db.system.name": "redis"})
        call = receiver.span("GET", **{"url.full": f"{receiver.address}/called"})
        job = receiver.span("job call", **{"job.outcome": "succeeded"})
        in_job = receiver.wait_for(lambda: next((s for s in receiver.spans() if s.parent_id == job.id), None))
    called = next(each for each in receiver.requests if each.path.startswith("/called"))
    of_request = [query, command, call]
    assert {span.trace_id for span in [request, *of_request, job, in_job]} == {TRACE}
    assert (request.parent_id, request.kind) == (PARENT, SERVER)
    assert {(span.parent_id, span.kind) for span in of_request} == {(request.id, CLIENT)}
    assert (job.parent_id, job.kind, job.attributes["job.attempt"]) == (request.id, CONSUMER, "1")
    assert called.headers["traceparent"] == f"00-{TRACE}-{call.id}-01"
    assert request.attributes["http.route"] == "/traced/numbers/{number}"
    assert request.attributes["request.id"] == "r-1"
    assert request.attributes["url.query"] == "REDACTED"
    assert {span.resource["service.name"] for span in (request, job)} == {"traced_api"}
    assert {span.resource["service.version"] for span in (request, job)} == {"1.2.3"}
    assert [span.name for span in receiver.spans() if SECRET in span.text] == []
    assert [span.name for span in receiver.spans() if span.trace_id != TRACE] == []  # no heartbeats and looks for jobs


def test_a_failure_is_marked_without_the_values_that_its_message_quotes(
    start: Start, start_worker: Start, receiver: Receiver
) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.address}/v1/traces", "OTEL_SERVICE_NAME": "other"}
    with start(**endpoint) as served, start_worker(**endpoint):
        assert get(served, "/traced/invalid").status_code == 500
        assert get(served, "/traced/numbers/7?job=fail").status_code == 200
        request = receiver.span("GET /traced/invalid")
        statement = receiver.span("SELECT", **{"error.type": "InvalidTextRepresentationError"})
        job = receiver.span("job fail", **{"job.outcome": "dead"})
    assert {span.status for span in (request, statement, job)} == {(ERROR, "")}
    assert "asyncpg.exceptions.InvalidTextRepresentationError" in statement.text
    assert [span.name for span in receiver.spans() if SECRET in span.text] == []
    assert request.resource["service.name"] == "other"


def test_what_the_cache_answers_has_its_route_and_a_load_is_part_of_the_trace(start: Start, receiver: Receiver) -> None:
    with start(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.address,
        OTEL_BSP_SCHEDULE_DELAY="600000",  # so that nothing is sent before the end of the process
        CACHE_RESPONSES="memory",
        CACHE_NAMESPACE=uuid4().hex,
    ) as served:
        loaded = get(served, "/traced/cached")
        hit = get(served, "/traced/cached")
        assert [each.headers["x-cache"] for each in (loaded, hit)] == ["miss", "hit"]
        assert get(served, "/health/ready").status_code == 200
        assert receiver.spans() == []
        served.process.terminate()
        served.wait_until_exited()
    spans = receiver.spans()
    requests = {span.id for span in spans if span.name == "GET /traced/cached"}
    assert len(requests) == 2
    parents = [span.parent_id for span in spans if span.name == "SELECT"]
    assert len(parents) == 1
    assert {*parents} <= requests
    assert [span.name for span in spans if not span.parent_id and span.kind != SERVER] == []
    assert [span.name for span in spans if "health" in span.text] == []


def test_a_trace_that_the_client_does_not_sample_is_passed_on_and_not_sent(start: Start, receiver: Receiver) -> None:
    with start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.address) as served:
        assert get(served, "/traced/numbers/7?job=call", **traceparent("00")).status_code == 200
        served.process.terminate()
        served.wait_until_exited()
    called = next(each for each in receiver.requests if each.path.startswith("/called"))
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", called.headers["traceparent"])
    assert receiver.spans() == []


def test_a_collector_that_is_away_affects_no_request_and_is_logged_once(start: Start) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    with start(**variables) as served:
        for _ in range(3):
            assert get(served, "/traced/numbers/7?job=call").status_code == 200
        served.wait_for("The collector takes no traces")
        assert get(served, "/traced/numbers/7?job=call").status_code == 200
        served.process.terminate()
        output = served.wait_until_exited()
    assert output.count("collector") == 1
    assert "opentelemetry" not in output
    assert "Traceback" not in output


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with start(
            OTEL_EXPORTER_OTLP_TIMEOUT="1000",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            SERVER_GRACEFUL_TIMEOUT_SECONDS="15",
        ) as served:
            assert get(served, "/traced/cached").status_code == 200
            served.process.terminate()
            output = served.wait_until_exited()
    assert "Worker exiting" in output  # before Gunicorn kills it


SHOW_MODULES = """
import asyncio, sys
from httpx import ASGITransport, AsyncClient
from app.main import app
async def main():
    async with app.router.lifespan_context(app) as state, AsyncClient(transport=ASGITransport(app)) as client:
        assert (await client.get("http://localhost/health/live")).status_code == 200
asyncio.run(main())
print(*sorted(sys.modules))
"""


def test_without_a_collector_nothing_of_it_is_imported(database_url: str) -> None:
    environment = child_environment(DATABASE_URL=database_url)
    done = subprocess.run(
        [sys.executable, "-c", SHOW_MODULES], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    optional = ("opentelemetry.exporter", "opentelemetry.instrumentation", "sentry_sdk", "pyinstrument")
    # Without redis-py, which imports the SDK's metrics where they are installed.
    assert [name for name in loaded if name.startswith((*optional, "opentelemetry.sdk.trace"))] == []


def test_fastapi_makes_spans_only_for_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert fastapi_telemetry(())["tracing"] is False
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:4318")
    assert fastapi_telemetry(())["tracing"] is True


@pytest.mark.parametrize(
    "switch",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    ],
)
def test_traces_can_be_switched_off(start: Start, receiver: Receiver, switch: dict[str, str]) -> None:
    with start(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.address, **switch) as served:
        assert get(served, "/traced/numbers/7?job=call", **traceparent()).status_code == 200
        served.process.terminate()
        served.wait_until_exited()
    assert receiver.spans() == []


@pytest.mark.parametrize(
    ("module", "variable", "extra"),
    [
        ("opentelemetry.sdk", "OTEL_EXPORTER_OTLP_ENDPOINT", "tracing"),
        ("sentry_sdk", "SENTRY_DSN", "sentry"),
        ("pyinstrument", "PROFILE_REQUESTS", "profiling"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, variable: str, extra: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    profile, sentry = ProfileSettings(requests=True), SentrySettings(dsn=SecretStr("https://key@sentry.example.com/1"))
    expected = f"{variable}: needs the extra `{extra}`; install it, or unset the variable"
    assert [*missing_extras(profile, sentry)] == [expected]
