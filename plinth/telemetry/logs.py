"""The log of the process: one handler on standard output, as JSON for machines or as text for people.

The named arguments of a message (`log.info("%(method)s …", {"method": …})`) and the keys of `extra` become fields.
`event`, by which lines are grouped, is the message before its arguments are filled in, unless `extra` has another. A
record is one line of JSON, or text of which only the first line begins at the left margin. No value makes logging fail.
"""

import json
import logging
import logging.config
import os
import sys
from asyncio import CancelledError
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.orjson import OrjsonFormatter

from plinth.telemetry.context import request_id
from plinth.telemetry.redaction import REDACTED, is_sensitive, redact_json, redact_text

log = logging.getLogger(__name__)

# They come with handlers of their own, or get some from a server; without them each record is written once.
_LIBRARIES = ("uvicorn", "uvicorn.error", "gunicorn", "gunicorn.error", "alembic")
# `color_message` is Uvicorn's message again, with escape codes.
_RESERVED = frozenset({*RESERVED_ATTRS, "taskName", "color_message"})
_COLORS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}


def logging_config(level: str, format: Literal["json", "text"], service: str | None = None) -> dict[str, Any]:
    """Return the configuration of the whole process's log for `logging.config.dictConfig`.

    Records from `level` on go to standard output; `service` is a field of each line of JSON.
    """
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    formatter = {"()": JSONFormatter, "service": service} if format == "json" else {"()": TextFormatter, "color": color}
    inherit: dict[str, Any] = {"level": "NOTSET", "handlers": [], "propagate": True}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"stdout": formatter},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "stdout"}},
        "root": {"level": level, "handlers": ["stdout"]},
        "loggers": {
            **dict.fromkeys(_LIBRARIES, inherit),
            "uvicorn.error": {**inherit, "filters": [summarize_cancelled]},
            # It lacks the request id; RequestContextMiddleware writes the access log.
            "uvicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
            # At INFO it logs the whole URL of each call, in which there may be a token.
            "httpx": {**inherit, "level": "DEBUG" if level == "DEBUG" else "WARNING"},
            # At INFO it names its own parts at each import.
            "alembic.runtime.plugins": {**inherit, "level": "INFO" if level == "DEBUG" else "WARNING"},
            # At INFO it logs statements, and pools, whose loggers have the names of their classes.
            "sqlalchemy": {**inherit, "level": "INFO" if level == "DEBUG" else "WARNING"},
            "plinth.database.pools.ChangesPool": {**inherit, "level": "INFO" if level == "DEBUG" else "WARNING"},
        },
    }


def configure_logging(level: str, format: Literal["json", "text"], service: str | None = None) -> None:
    """Apply `logging_config` and log Python's warnings, too.

    Replaces the root logger's stream handlers, those of an earlier call included. Other kinds (a test's, an error
    tracker's) stay. Call it before an engine is made: SQLAlchemy reads the level once.
    """
    root = logging.getLogger()
    others = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    logging.config.dictConfig(logging_config(level, format, service))
    for handler in others:
        root.addHandler(handler)
    logging.captureWarnings(True)


def summarize_cancelled(record: logging.LogRecord) -> bool:
    """Replace Uvicorn's traceback of a request that did not end before the server stopped: the code has no fault."""
    if record.exc_info and isinstance(record.exc_info[1], CancelledError):
        log.warning("The request was cancelled: the server is stopping.")
        return False
    return True


class JSONFormatter(OrjsonFormatter):
    """One JSON object per record. A value that JSON cannot represent becomes text."""

    def __init__(self, service: str | None = None) -> None:
        super().__init__(
            rename_fields={"exc_info": "exception", "stack_info": "stack"},
            static_fields={} if service is None else {"service": service},
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        fields = record.args.copy() if isinstance(record.args, dict) else {}
        fields.pop("event", None)
        merge_record_extra(record, fields, _RESERVED)
        fields |= {self.rename_fields.get(name, name): value for name, value in message_dict.items()}
        own = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
            "event": fields.pop("event", None) or (record.msg if isinstance(record.msg, str) else record.name),
            "message": record.message,
            **self.static_fields,
        }
        log_data |= own | {"request_id": request_id.get()}
        if trace_id := current_trace_id():
            log_data["trace_id"] = trace_id
        for name, value in fields.items():
            # What a client sends must not pass for another level or message.
            key = f"{name}_" if own.get(name) else name
            log_data[key] = REDACTED if value is not None and is_sensitive(name) else value

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        try:
            line = orjson.dumps(log_data, default=to_text, option=orjson.OPT_UTC_Z)
        except TypeError:  # half a surrogate pair, a key that is not a string, an integer beyond 64 bits, a cycle
            line = json.dumps({to_text(name): to_text(value) for name, value in log_data.items()}).encode()
        return redact_json(line)


class TextFormatter(logging.Formatter):
    """Aligned columns: time, level, logger, message and the fields that the message does not contain."""

    def __init__(self, color: bool = False) -> None:
        super().__init__()
        self.color = color

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006 - the reader's time
        level = f"{record.levelname:8}"
        if self.color:
            level = f"\x1b[{_COLORS.get(record.levelname, 0)}m{level}\x1b[0m"
        text = record.getMessage().rstrip("\n") + "".join(self._fields(record))
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + record.stack_info
        text = "\n    ".join(map(printable, redact_text(text).split("\n")))
        return f"{time} {level} {record.name:20} {text}"

    def _fields(self, record: logging.LogRecord) -> Iterator[str]:
        fields = record.args.copy() if isinstance(record.args, dict) else {}
        fields = merge_record_extra(record, fields, _RESERVED) | {"request_id": request_id.get()}
        for name, value in fields.items():
            if value is not None and name != "event" and f"%({name})" not in str(record.msg):
                yield f" {name}={REDACTED if is_sensitive(to_text(name)) else to_text(value)}"


def current_trace_id() -> str | None:
    """The trace of the span in progress as 32 hexadecimal digits, sampled or not; None where nothing is traced."""
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else None


def printable(line: str) -> str:
    """Escape control characters, line separators and the like."""
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


def to_text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without a text form>"
