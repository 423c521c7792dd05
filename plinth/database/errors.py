"""Translates what PostgreSQL, asyncpg and SQLAlchemy raise into plinth's errors. Database text stays in the log."""

import re
from typing import NoReturn

import asyncpg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from plinth.errors import AppError, ConflictError, InvalidError, UnavailableError

DATABASE_AWAY = "The database cannot be reached. Try again in a moment."
DATABASE_BUSY = "All database connections are busy. Try again in a moment."

OUTCOME_UNKNOWN = "The database did not confirm the change. It may have been stored; look before you repeat it."

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
# asyncpg raises these without sending anything, and without a code. The second is of a connection whose end was
# announced by a FATAL error and has not arrived yet. Others of these classes are mistakes: a type without a codec, say.
NOT_SENT = {
    asyncpg.InterfaceError: re.compile("closed"),
    asyncpg.InternalClientError: re.compile("state|another operation|not connected|target_session_attrs|host"),
}

# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNIQUE_VIOLATION = "23505"
RESTRICT_VIOLATION = "23001"
FOREIGN_KEY_VIOLATIONS = {"23503", RESTRICT_VIOLATION}
CONNECTION_LOST = {"57P01", "57P02", "57P03", "25006"}  # the server stops, or has become a standby
FATAL = {"FATAL", "PANIC"}  # PostgreSQL ends the connection after these, with any code
KEY = re.compile(r"\(([^()]*)\)=\((.*?)\)")  # in the detail of a violation, in any language
CONCURRENT_CHANGE = ConflictError, "The same data was changed at the same time. Try again."
TOO_SLOW = UnavailableError, "The database took too long to answer. Try again in a moment."
TRANSIENT = {
    "40001": CONCURRENT_CHANGE,  # serialization failure
    "40P01": CONCURRENT_CHANGE,  # deadlock
    "57014": TOO_SLOW,  # statement timeout
    "55P03": TOO_SLOW,  # lock timeout
}


class ConstraintError(Exception):
    """A row does not satisfy a constraint: a mistake of the service, which checks its input."""


def raise_translated(error: Exception) -> NoReturn:
    """Raise the error that a client may see, caused by this one; or this one, where there is none."""
    if translated := translate(error):
        raise translated from error
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.CheckViolationError | asyncpg.NotNullViolationError):
        # PostgreSQL's error has the values of the whole row, some of which may be secret.
        raise ConstraintError(str(cause.args[0])) from None
    raise error


def translate(error: Exception) -> AppError | None:
    """The error that a client may see in place of a database error; None where there is none."""
    if isinstance(error, StatementError) and isinstance(error.orig, AppError):
        return error.orig  # of a column type, which SQLAlchemy wraps
    if isinstance(error, PoolTimeoutError):
        return UnavailableError(DATABASE_BUSY)
    if isinstance(error, TimeoutError) or is_connection_lost(error):
        return UnavailableError(DATABASE_AWAY)
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        return _refusal(cause, getattr(error, "statement", None) or "")
    kind, message = TRANSIENT.get(_sqlstate(error), (None, ""))
    return kind(message) if kind else None


def is_connection_lost(error: Exception) -> bool:
    """Whether the connection has ended, or will in a moment; for an error of `asyncpg.connect()`: was not made."""
    cause = _driver_error(error)
    for kind, message in NOT_SENT.items():
        if isinstance(cause, kind):
            return message.search(str(cause)) is not None
    code = _sqlstate(error)
    severity = getattr(cause, "severity_en", None) or getattr(cause, "severity", None)
    return isinstance(cause, OSError) or severity in FATAL or code.startswith("08") or code in CONNECTION_LOST


def is_safe_to_retry(error: Exception) -> bool:
    """Whether a read lost its connection. A TimeoutError is none: the server may be as slow the second time."""
    is_read_only = isinstance(error, asyncpg.ReadOnlySQLTransactionError)
    return is_connection_lost(error) and not isinstance(error, TimeoutError) and not is_read_only


def is_outcome_unknown(error: Exception) -> bool:
    """Whether a COMMIT that failed with this error was sent, and may have been carried out."""
    return is_connection_lost(error) and not isinstance(_driver_error(error), tuple(NOT_SENT))


def _sqlstate(error: Exception) -> str:
    if isinstance(error, StaleDataError):  # the session's own, of a `version_id_col`
        return "40001"
    return getattr(_driver_error(error), "sqlstate", None) or ""


def _driver_error(error: Exception) -> BaseException | None:
    """asyncpg's error, which SQLAlchemy wraps twice."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error


def _refusal(error: asyncpg.IntegrityConstraintViolationError, sql: str) -> AppError | None:
    if error.sqlstate == UNIQUE_VIOLATION:
        return ConflictError(f"{_subject(error)} is already taken.")
    if error.sqlstate in FOREIGN_KEY_VIOLATIONS:
        detail = error.detail or ""
        if error.sqlstate == RESTRICT_VIOLATION or sql.startswith("DELETE") or "still referenced" in detail:
            return ConflictError("It cannot be deleted while something else refers to it.")
        columns, values = key.groups() if (key := KEY.search(detail)) else (_columns(error), "")
        message = f"{_subject(error)} refers to something that does not exist."
        if not columns:
            return ConflictError(message)
        # The last column of a composite key: the others say whose it is.
        return InvalidError(columns.split(", ")[-1], message, values.split(", ")[-1] or None)
    return None


def _subject(error: asyncpg.IntegrityConstraintViolationError) -> str:
    """What a constraint guards, by the naming convention: `uq_products_sku` guards the sku."""
    return f"This {columns}" if (columns := _columns(error)) else "This"


def _columns(error: asyncpg.IntegrityConstraintViolationError) -> str:
    return (error.constraint_name or "").partition(f"_{error.table_name}_")[2]
