import io
import json
import logging
import logging.config
import sys
import warnings
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry import trace

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import JSONFormatter, TextFormatter, configure_logging, logging_config

SERVERS = ["uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn", "gunicorn.error", "sqlalchemy", "alembic"]
Output = Callable[[], list[str]]
LOG = logging.getLogger("tests.logs")


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """Return the lines on standard output since the last call; afterwards all loggers are as they were."""
    loggers = [logging.getLogger(), *map(logging.getLogger, SERVERS)]
    kept = [(logger, logger.handlers[:], logger.filters[:], logger.level, logger.propagate) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        yield lambda: capsys.readouterr().out.splitlines()  # noqa: PLW0108 - to be read when called
        logging.captureWarnings(False)
    for logger, handlers, filters, level, propagate in kept:
        logger.handlers, logger.filters, logger.propagate = handlers, filters, propagate
        logger.setLevel(level)


@pytest.fixture
def request_abc() -> Iterator[None]:
    token = request_id.set("abc")
    yield
    request_id.reset(token)


def lines(output: Output) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output()]


def record(message: object = "hello", *args: Any, extra: dict[str, Any] | None = None) -> logging.LogRecord:
    return LOG.makeRecord("tests.logs", logging.INFO, "", 0, message, args, None, extra=extra)


@pytest.mark.usefixtures("request_abc")
def test_json_has_time_level_logger_message_request_and_service(output: Output) -> None:
    configure_logging("INFO", "json", "Plinth")
    LOG.warning("Sold %d", 3, extra={"product": 7, "at": datetime(2026, 1, 2)})  # noqa: DTZ001
    [line] = lines(output)
    timestamp = line.pop("timestamp")
    assert line == {
        "level": "WARNING",
        "logger": "tests.logs",
        "event": "Sold %d",
        "message": "Sold 3",
        "request_id": "abc",
        "service": "Plinth",
        "product": 7,
        "at": "2026-01-02T00:00:00",
    }
    assert timestamp.endswith("Z")
    assert datetime.fromisoformat(timestamp).utcoffset() == timedelta(0)


def test_an_event_groups_lines_whatever_their_values(output: Output) -> None:
    configure_logging("INFO", "json")
    LOG.info("Sold %(count)d", {"count": 3, "event": "of a client"})
    LOG.info("Sold %d", 4, extra={"event": "sold"})
    LOG.info(ValueError("Sold 5"))
    assert [line["event"] for line in lines(output)] == ["Sold %(count)d", "sold", "tests.logs"]
    configure_logging("INFO", "text")
    LOG.info("Sold %d", 4, extra={"event": "sold"})
    assert output()[0].endswith(" Sold 4")


def test_a_line_has_the_trace_of_its_span(output: Output) -> None:
    configure_logging("INFO", "json")
    span = trace.SpanContext(trace_id=0xABC, span_id=1, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(span)):
        LOG.info("x")
    LOG.info("y")
    traced, untraced = lines(output)
    assert traced["trace_id"] == f"{0xABC:032x}"
    assert "trace_id" not in untraced


def test_named_arguments_become_fields(output: Output) -> None:
    configure_logging("INFO", "json")
    LOG.info("Sold %(count)d", {"count": 3, "product": 7})
    [line] = lines(output)
    assert (line["message"], line["count"], line["product"]) == ("Sold 3", 3, 7)
    assert line["request_id"] is None
    assert "service" not in line


@pytest.mark.usefixtures("request_abc")
def test_extra_overrides_the_request_id_of_the_context(output: Output) -> None:
    configure_logging("INFO", "json")
    LOG.info("x", extra={"request_id": "of another"})
    assert lines(output)[0]["request_id"] == "of another"


def test_no_field_takes_the_place_of_the_lines_own(output: Output) -> None:
    configure_logging("INFO", "json", "Shop")
    forged = {"level": "DEBUG", "timestamp": "1970", "logger": "other", "service": "Other"}
    LOG.info("real", extra=forged)
    LOG.info("real", {**forged, "message": "forged"})  # noqa: PLE1205 - the dict has the fields
    LOG.info({**forged, "message": "real"})
    for line in lines(output):
        shown = tuple(line[name] for name in ("level", "logger", "service", "message"))
        assert shown == ("INFO", "tests.logs", "Shop", "real")
        assert not line["timestamp"].startswith("1970")
        assert (line["level_"], line["service_"]) == ("DEBUG", "Other")


def test_an_exception_and_a_stack_are_in_their_line(output: Output) -> None:
    configure_logging("INFO", "json")
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        LOG.exception("Failed", stack_info=True)
    [line] = lines(output)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ZeroDivisionError: oh")
    assert line["stack"].startswith("Stack (most recent call last):\n")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ({1}, "{1}"),
        (ValueError("x"), "x"),
        (Unprintable(), "<Unprintable without a text form>"),
        (CYCLE, "[[...]]"),
        (2**70, str(2**70)),
        ("\ud83d", "\ud83d"),
        ({1: 2}, "{1: 2}"),
        (b"x", "b'x'"),
        (float("nan"), None),
    ],
)
def test_a_value_without_a_json_form_becomes_text(value: object, logged: object) -> None:
    line = JSONFormatter().format(record(extra={"value": value}))
    assert json.loads(line)["value"] == logged
    assert line.encode()


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@settings(max_examples=50)
@example(message="\ud83d\r\n\x1b\x85\u2028\u202e", value={1: "\ud83d"})
@given(message=st.text(st.characters(exclude_categories=())), value=anything)
def test_no_value_makes_logging_fail_or_looks_like_another_record(message: str, value: Any) -> None:
    entry = record("%(message)s%(value)r", {"message": message, "value": value}, extra={"more": value})
    line = JSONFormatter().format(entry)
    assert json.loads(line)
    assert "\n" not in line
    text = TextFormatter().format(entry)
    assert text.encode()
    assert text.replace("\n", "").isprintable()
    assert all(line.startswith("    ") for line in text.split("\n")[1:])


def test_a_mapping_instead_of_a_message_becomes_fields() -> None:
    line = json.loads(JSONFormatter().format(record({"product": 7})))
    assert (line["message"], line["product"]) == ("", 7)


@pytest.mark.usefixtures("request_abc")
def test_text_is_aligned_and_ends_with_the_fields_that_the_message_lacks(output: Output) -> None:
    configure_logging("INFO", "text", "Plinth")
    LOG.info("Sold %(count)d", {"count": 3, "product": 7}, extra={"price": None, "to": "me"})
    logging.getLogger("sqlalchemy.engine").warning("SELECT\n1\x1b[31m\r\n")
    first, second, third = output()
    assert first[12:] == " INFO     tests.logs           Sold 3 product=7 to=me request_id=abc"
    assert second[12:] == " WARNING  sqlalchemy.engine    SELECT"
    assert third == "    1\\x1b[31m\\r request_id=abc"
    assert datetime.strptime(first[:12], "%H:%M:%S.%f")  # noqa: DTZ007


def test_text_shows_an_exception_indented(output: Output) -> None:
    configure_logging("INFO", "text")
    try:
        raise ZeroDivisionError("one\n12:00:00.000 INFO     two")
    except ZeroDivisionError:
        LOG.exception("Failed", stack_info=True)
    first, *others = output()
    assert first.endswith(" Failed")
    assert others[0] == "    Traceback (most recent call last):"
    assert "    Stack (most recent call last):" in others
    assert all(other.startswith("    ") for other in others)


@pytest.mark.parametrize(
    ("terminal", "no_color", "colored"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_only_a_terminal_gets_color_unless_no_color_is_set(
    output: Output, monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: bool, colored: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    configure_logging("INFO", "text")
    LOG.error("x")
    assert ("\x1b[31mERROR   \x1b[0m" in output()[0]) is colored


def test_configuring_twice_logs_once(output: Output) -> None:
    configure_logging("INFO", "text")
    configure_logging("INFO", "json")
    LOG.info("x")
    assert [line["message"] for line in lines(output)] == ["x"]


def test_stream_handlers_are_replaced_and_other_kinds_still_receive_records(
    output: Output, caplog: pytest.LogCaptureFixture
) -> None:
    class Tracker(logging.Handler):
        messages: ClassVar[list[str]] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.messages.append(record.getMessage())

    root, replaced = logging.getLogger(), io.StringIO()
    root.addHandler(logging.StreamHandler(replaced))
    root.addHandler(Tracker())
    configure_logging("INFO", "json")
    configure_logging("INFO", "json")
    LOG.info("x")
    assert len(lines(output)) == 1
    assert (Tracker.messages, caplog.messages, replaced.getvalue()) == (["x"], ["x"], "")


def test_loggers_that_exist_already_stay_enabled(output: Output) -> None:
    own = logging.getLogger("tests.logs.own")
    own.setLevel(logging.DEBUG)
    configure_logging("INFO", "json")
    own.debug("x")
    assert [line["message"] for line in lines(output)] == ["x"]
    own.setLevel(logging.NOTSET)


def test_records_below_the_level_are_dropped(output: Output) -> None:
    configure_logging("WARNING", "json")
    LOG.info("x")
    LOG.warning("y")
    assert [line["message"] for line in lines(output)] == ["y"]


@pytest.mark.parametrize("name", ["uvicorn.error", "gunicorn.error", "sqlalchemy.engine", "alembic.runtime.migration"])
def test_a_record_of_a_server_or_library_is_written_once(output: Output, name: str) -> None:
    other = io.StringIO()
    for logger in (logging.getLogger(name), logging.getLogger(name.split(".", maxsplit=1)[0])):
        logger.handlers = [logging.StreamHandler(other)] if logger.name in SERVERS else []
        logger.propagate = logger.name not in SERVERS
    configure_logging("INFO", "json")
    logging.getLogger(name).warning("x", extra={"color_message": "\x1b[1mx"})
    [line] = lines(output)
    assert line["logger"] == name
    assert "color_message" not in line
    assert other.getvalue() == ""


def test_uvicorns_own_access_log_is_silent(output: Output) -> None:
    configure_logging("DEBUG", "json")
    logging.getLogger("uvicorn.access").info("x")
    assert not logging.getLogger("uvicorn.access").hasHandlers()  # which is how Uvicorn decides
    assert output() == []


@pytest.mark.parametrize(("level", "logged"), [("DEBUG", True), ("INFO", False)])
@pytest.mark.parametrize("logger", ["sqlalchemy.engine.Engine", "httpx"])
def test_statements_and_outgoing_calls_are_logged_at_debug(
    output: Output, logger: str, level: str, logged: bool
) -> None:
    configure_logging(level, "json")
    logging.getLogger(logger).info("SELECT 1")
    assert bool(lines(output)) is logged


def test_warnings_are_logged(output: Output) -> None:
    configure_logging("INFO", "json")
    warnings.warn("careful", stacklevel=1)
    [line] = lines(output)
    assert (line["logger"], line["level"]) == ("py.warnings", "WARNING")
    assert "careful" in line["message"]


@pytest.mark.usefixtures("output")
def test_a_stream_that_fails_does_not_fail_the_caller(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(closed, "isatty", lambda: False)
    monkeypatch.setattr(sys, "stdout", closed)
    configure_logging("INFO", "json")
    LOG.info("x")
    assert "--- Logging error ---" in capsys.readouterr().err


def test_a_cancelled_request_is_a_warning_of_one_line(output: Output) -> None:
    configure_logging("INFO", "json")
    server = logging.getLogger("uvicorn.error")
    for fault in (CancelledError(), ValueError("oh")):
        server.error("Exception in ASGI application", exc_info=fault)
    cancelled, failed = lines(output)
    assert (cancelled["level"], cancelled["message"]) == (
        "WARNING",
        "The request was cancelled: the server is stopping.",
    )
    assert "exception" not in cancelled
    assert (failed["level"], failed["exception"]) == ("ERROR", "ValueError: oh")


def test_gunicorn_and_uvicorn_can_be_given_the_same_configuration(output: Output) -> None:
    config = logging_config("INFO", "json", "Plinth")
    for _ in range(2):  # it is not changed by use
        logging.config.dictConfig(config)
    LOG.info("x")
    logging.getLogger("gunicorn.error").info("y")
    assert [(line["message"], line["service"]) for line in lines(output)] == [("x", "Plinth"), ("y", "Plinth")]
