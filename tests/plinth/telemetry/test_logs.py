import asyncio
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plinth.telemetry.context import request_id
from plinth.telemetry.logs import ACCESS_LOG, JSONFormatter, TextFormatter, configure_logging

SERVERS = ["uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn", "gunicorn.error", "sqlalchemy", "alembic"]
Output = Callable[[], list[str]]
LOG = logging.getLogger("tests.logs")


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """The lines on standard output since it was last called; afterwards all loggers are as they were."""
    loggers = [logging.getLogger(), *map(logging.getLogger, SERVERS)]
    kept = [(logger, logger.handlers, logger.level, logger.propagate, logger.disabled) for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        yield lambda: capsys.readouterr().out.splitlines()  # noqa: PLW0108 - to be read when asked
        logging.captureWarnings(False)
    for logger, handlers, level, propagate, disabled in kept:
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
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
def test_json_says_when_how_grave_where_what_and_for_whom(output: Output) -> None:
    configure_logging("INFO", "json", "Plinth")
    LOG.warning("Sold %d", 3, extra={"product": 7, "at": datetime(2026, 1, 2)})  # noqa: DTZ001
    [line] = lines(output)
    timestamp = line.pop("timestamp")
    assert line == {
        "level": "WARNING",
        "logger": "tests.logs",
        "message": "Sold 3",
        "request_id": "abc",
        "service": "Plinth",
        "product": 7,
        "at": "2026-01-02T00:00:00",
    }
    assert timestamp.endswith("Z")
    assert datetime.fromisoformat(timestamp).utcoffset() == timedelta(0)


def test_named_arguments_become_fields(output: Output) -> None:
    configure_logging("INFO", "json")
    LOG.info("Sold %(count)d", {"count": 3, "product": 7})
    [line] = lines(output)
    assert (line["message"], line["count"], line["product"]) == ("Sold 3", 3, 7)
    assert line["request_id"] is None
    assert "service" not in line


@pytest.mark.usefixtures("request_abc")
def test_what_is_said_outright_beats_what_is_known(output: Output) -> None:
    configure_logging("INFO", "json")
    LOG.info("x", extra={"request_id": "of another"})
    assert lines(output)[0]["request_id"] == "of another"


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
        (Unprintable(), "<Unprintable that cannot be shown>"),
        (CYCLE, "[[...]]"),
        (2**70, str(2**70)),
        ("\ud83d", "\ud83d"),
        ({1: 2}, "{1: 2}"),
        (b"x", "b'x'"),
        (float("nan"), None),
    ],
)
def test_what_json_has_no_form_for_becomes_text(value: object, logged: object) -> None:
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
def test_nothing_that_is_logged_fails_or_looks_like_another_line(message: str, value: Any) -> None:
    entry = record("%(message)s%(value)r", {"message": message, "value": value}, extra={"more": value})
    line = JSONFormatter().format(entry)
    assert json.loads(line)
    assert "\n" not in line
    text = TextFormatter().format(entry)
    assert text.encode()
    assert text.replace("\n", "").isprintable()
    assert all(line.startswith("    ") for line in text.split("\n")[1:])


@pytest.mark.usefixtures("request_abc")
def test_text_is_aligned_and_shows_what_the_message_does_not(output: Output) -> None:
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
def test_only_a_terminal_that_wants_it_gets_color(
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


def test_a_stream_handler_that_was_there_is_replaced_and_another_kind_stays(output: Output) -> None:
    class Tracker(logging.Handler):
        pass

    tracker, root = Tracker(), logging.getLogger()
    root.handlers = [logging.StreamHandler(io.StringIO()), tracker]
    configure_logging("INFO", "json")
    assert root.handlers[0] is tracker
    assert len(root.handlers) == 2


def test_below_the_level_nothing_is_logged(output: Output) -> None:
    configure_logging("WARNING", "json")
    LOG.info("x")
    LOG.warning("y")
    assert [line["message"] for line in lines(output)] == ["y"]


@pytest.mark.parametrize("name", ["uvicorn.error", "gunicorn.error", "sqlalchemy.engine", "alembic.runtime.migration"])
def test_what_servers_and_libraries_log_comes_once(output: Output, name: str) -> None:
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
    logging.getLogger("uvicorn.access").error("x")
    assert output() == []


@pytest.mark.parametrize(("level", "logged"), [("DEBUG", True), ("INFO", False)])
def test_statements_are_logged_at_debug(output: Output, level: str, logged: bool) -> None:
    configure_logging(level, "json")
    logging.getLogger("sqlalchemy.engine.Engine").info("SELECT 1")
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


async def test_the_access_log_is_written_together_and_before_whatever_else_is_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", written.append)
    monkeypatch.setattr(sys, "stdout", stream)
    configure_logging("INFO", "json")
    access = logging.getLogger(ACCESS_LOG)
    for number, texts in enumerate(["ab", "cd"]):
        for text in texts:
            access.info(text)
        assert len(written) == number
        while len(written) == number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    access.info("e")
    LOG.info("f")
    said = [[json.loads(line)["message"] for line in each.splitlines()] for each in written]
    assert said == [["a", "b"], ["c", "d"], ["e", "f"]]


async def test_a_line_that_waits_is_what_it_would_have_been_and_a_bad_one_harms_no_other(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    configure_logging("INFO", "json")
    for id in "abc":
        token = request_id.set(id)
        logger = LOG if id == "c" else logging.getLogger(ACCESS_LOG)
        logger.info(id)
        logger.info("%d", "no number")
        request_id.reset(token)
    assert [(line["message"], line["request_id"]) for line in lines(output)] == [("a", "a"), ("b", "b"), ("c", "c")]


def test_what_a_loop_did_not_come_to_write_is_written_in_the_next(output: Output) -> None:
    configure_logging("INFO", "json")

    async def log(message: str) -> None:
        logging.getLogger(ACCESS_LOG).info(message)

    loop = asyncio.new_event_loop()
    task = loop.create_task(log("a"))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert task.done()
    loop.close()
    asyncio.run(log("b"))
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert [line["message"] for line in lines(output)] == ["a", "b"]
