"""Everything that is logged leaves through one handler on standard output, and one record can never look like two.

The named arguments of a message (`log.info("%(method)s …", {"method": …})`) and the keys of `extra` become fields.
"""

import asyncio
import json
import logging
import os
import sys
from asyncio import CancelledError
from contextvars import Context, copy_context
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from plinth.telemetry.context import request_id

ACCESS_LOG = "app.access"
LINGER_SECONDS = 0.02

# These bring handlers of their own, or are given some by a server.
_ADOPTED = ("uvicorn", "uvicorn.error", "gunicorn", "gunicorn.error", "sqlalchemy", "alembic")
# What every record has; anything else came through `extra`. Uvicorn adds its message in colour.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
_STANDARD_COUNT = len(vars(logging.makeLogRecord({})))
_COLORS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}


def configure_logging(level: str, format: Literal["json", "text"], service: str | None = None) -> None:
    """Send the whole process's log to standard output, from `level` on; `service` names it in each line of JSON.

    Replaces the handlers that write to a stream, those of an earlier call included; others (a test's, an error
    tracker's) stay. Call it before an engine is built: SQLAlchemy looks at the level once.
    """
    handler = _StdoutHandler(sys.stdout)
    if format == "json":
        handler.setFormatter(JSONFormatter(service))
    else:
        handler.setFormatter(TextFormatter(color=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    root = logging.getLogger()
    root.handlers = [*(h for h in root.handlers if type(h) not in {logging.StreamHandler, _StdoutHandler}), handler]
    root.setLevel(level)
    for name in _ADOPTED:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.getLogger("uvicorn.error").addFilter(_tell_cut_off)
    # Its line knows no request id, and ours says the same.
    logging.getLogger("uvicorn.access").disabled = True
    # At INFO it logs statements.
    logging.getLogger("sqlalchemy").setLevel(logging.INFO if level == "DEBUG" else logging.WARNING)
    logging.captureWarnings(True)


def _tell_cut_off(record: logging.LogRecord) -> bool:
    """A request that outlasts the server's patience while it stops is no error of the application's."""
    if record.exc_info and isinstance(record.exc_info[1], CancelledError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args, record.exc_info = "A request was cut off: the server is stopping.", (), None
    return True


class _StdoutHandler(logging.StreamHandler[TextIO]):
    """Lets records of the access log wait for one another, since each write costs; all else leaves at once.

    They are made into lines together, too: that takes half as long as one by one, between other work. A process that is
    killed meanwhile takes the last LINGER_SECONDS of them along.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[tuple[Context, logging.LogRecord]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        """That will write them."""

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append((copy_context(), record))
        loop = asyncio._get_running_loop() if record.name == ACCESS_LOG else None
        if loop is None:
            self._write(record)
        elif loop is not self._loop or len(self._waiting) == 1:
            self._loop = loop
            loop.call_later(LINGER_SECONDS, self._write, record)

    def flush(self) -> None:
        self.acquire()
        try:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self.stream.write("".join([self._line(context, record) for context, record in waiting]))
                self.stream.flush()
        finally:
            self.release()

    def _line(self, context: Context, record: logging.LogRecord) -> str:
        """As it was to be when it was logged."""
        try:
            return context.run(self.format, record) + "\n"
        except Exception:
            self.handleError(record)
            return ""

    def _write(self, record: logging.LogRecord) -> None:
        try:
            self.flush()
        except Exception:
            self.handleError(record)


class JSONFormatter(logging.Formatter):
    """One JSON object a line. What JSON has no form for becomes text: nothing that is logged makes it fail."""

    def __init__(self, service: str | None = None) -> None:
        super().__init__()
        self.service = {} if service is None else {"service": service}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            **self.service,
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        try:
            return orjson.dumps(line, default=_text, option=orjson.OPT_UTC_Z).decode()
        except TypeError:  # half a surrogate pair, a key that is no text, an integer beyond 64 bits, a cycle
            return json.dumps({_text(name): _text(value) for name, value in line.items()})


class TextFormatter(logging.Formatter):
    """For people: aligned, and only the start of a record begins at the left margin."""

    def __init__(self, color: bool = False) -> None:
        super().__init__()
        self.color = color

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - the reader's time
        level = f"{record.levelname:8}"
        if self.color:
            level = f"\x1b[{_COLORS.get(record.levelname, 0)}m{level}\x1b[0m"
        text = record.getMessage().rstrip("\n")
        for name, value in {**_fields(record), "request_id": request_id.get()}.items():
            if value is not None and f"%({name})" not in str(record.msg):
                text += f" {name}={_text(value)}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        text = "\n    ".join(map(_printable, text.split("\n")))
        return f"{time} {level} {record.name:20} {text}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    named = record.args if isinstance(record.args, dict) else {}
    if len(record.__dict__) <= _STANDARD_COUNT:
        return named
    return {**named, **{name: value for name, value in record.__dict__.items() if name not in _STANDARD}}


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"
