"""Errors, as a Sentry receives them from the processes of a service."""

import pytest
from pydantic import SecretStr

from plinth.telemetry.sentry import complete
from plinth.telemetry.settings import SentrySettings
from tests.plinth.telemetry.conftest import Start
from tests.plinth.telemetry.receiver import Receiver
from tests.plinth.telemetry.test_tracing import TRACE, get, traceparent
from tests.plinth.telemetry.traced import SECRET


@pytest.fixture
def dsn(receiver: Receiver) -> str:
    return f"{receiver.address.replace('//', '//key@')}/1"


def test_an_unhandled_error_is_one_event_without_anything_of_the_client(
    start: Start, receiver: Receiver, dsn: str
) -> None:
    with start(SENTRY_DSN=dsn, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.address, APP_VERSION="1.2.3") as served:
        for path in ("/traced/missing", "/traced/unavailable", "/traced/cached", "/nowhere"):
            get(served, path)  # a refusal is no error of the service
        headers = {"Authorization": f"Bearer {SECRET}", "Cookie": f"session={SECRET}", "X-Request-ID": "r-2"}
        assert get(served, f"/traced/invalid?token={SECRET}", **headers, **traceparent()).status_code == 500
        served.process.terminate()
        served.wait_until_exited()
    [event] = receiver.events()
    assert event["level"] == "error"
    assert [each["type"] for each in event["exception"]["values"]][-1] == "DBAPIError"
    assert event["tags"] == {"request_id": "r-2", "route": "/traced/invalid"}
    assert event["contexts"]["trace"]["trace_id"] == TRACE
    assert (event["release"], event["environment"]) == ("1.2.3", "development")
    assert event.keys() & {"request", "user"} == set()
    assert sorted(event["sdk"]["integrations"]) == ["atexit", "dedupe", "excepthook", "logging"]
    assert event["breadcrumbs"] == {"values": []}
    assert SECRET not in str(event)
    frames = [frame for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    assert [frame for frame in frames if "vars" in frame] == []


def test_what_an_integration_of_the_services_own_adds_of_a_client_is_removed() -> None:
    event = complete({"message": "x", "request": {"cookies": SECRET}, "user": {"email": SECRET}}, {})
    assert event == {"message": "x", "tags": {}}


def test_a_job_that_is_given_up_is_one_event_and_one_that_is_repeated_is_none(
    start: Start, start_worker: Start, receiver: Receiver, dsn: str
) -> None:
    with start() as served, start_worker(SENTRY_DSN=dsn) as worker:
        for job in ("repeat", "fail", "close"):
            assert get(served, f"/traced/numbers/7?job={job}", **{"X-Request-ID": f"of-{job}"}).status_code == 200
            worker.wait_for(rf"{job} \w+ in attempt 1")
        worker.process.terminate()
        worker.wait_until_exited()
    events = {event["tags"]["job"]: event for event in receiver.events()}
    assert len(events) == len(receiver.events())
    assert {event["tags"]["request_id"] for event in events.values()} == {"of-fail", "of-close"}
    assert events["fail"]["exception"]["values"][-1]["value"] == "No number is right."
    assert events["close"]["exception"]["values"][-1]["type"] == "GiveUp"


@pytest.mark.parametrize(
    "dsn", ["sentry.example.com", "https://sentry.example.com/1", "https://key@sentry.example.com"]
)
def test_a_dsn_that_is_none_is_refused_without_quoting_it(dsn: str) -> None:
    with pytest.raises(ValueError, match="must be the DSN of a project"):
        SentrySettings(dsn=SecretStr(dsn))
