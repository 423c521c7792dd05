"""Translates what PostgreSQL, asyncpg and SQLAlchemy raise into plinth's errors. Database text stays in the log."""

from typing import NoReturn

import asyncpg
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from plinth.errors import AppError, ConflictError, UnavailableError

DATABASE_AWAY = "The database cannot be reached. Try again in a moment."
DATABASE_BUSY = "All database connections are busy. Try again in a moment."

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

# What `asyncpg.connect()` raises where the server is away or does not accept the connection.
REFUSALS = (
    OSError,  # refused, unreachable, timed out
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.TooManyConnectionsError,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATIONS = {"23503", "23001"}
CONNECTION_LOST = {"57P01", "57P02", "57P03", "25006"}  # the server stops, or has become a standby
CONCURRENT_CHANGE = ConflictError, "The same data was changed at the same time. Try again."
TOO_SLOW = UnavailableError, "The database took too long to answer. Try again in a moment."
TRANSIENT = {
    "40001": CONCURRENT_CHANGE,  # serialization failure
    "40P01": CONCURRENT_CHANGE,  # deadlock
    "57014": TOO_SLOW,  # statement timeout
    "55P03": TOO_SLOW,  # lock timeout
}


def raise_translated(error: Exception) -> NoReturn:
    """Raise the error that a client may see, caused by this one; or this one, where there is none."""
    if translated := translate(error):
        raise translated from error
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
        return _conflict(cause, getattr(error, "statement", None) or "")
    kind, message = TRANSIENT.get(_sqlstate(error), (None, ""))
    return kind(message) if kind else None


def is_connection_lost(error: Exception) -> bool:
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.InterfaceError):
        return "closed" in str(cause)  # it has no code
    code = _sqlstate(error)
    return isinstance(cause, OSError) or code.startswith("08") or code in CONNECTION_LOST


def _sqlstate(error: Exception) -> str:
    if isinstance(error, StaleDataError):  # the session's own, of a `version_id_col`
        return "40001"
    return getattr(_driver_error(error), "sqlstate", None) or ""


def _driver_error(error: Exception) -> BaseException | None:
    """asyncpg's error, which SQLAlchemy wraps twice."""
    return error.orig.__cause__ if isinstance(error, DBAPIError) and error.orig else error


def _conflict(error: asyncpg.IntegrityConstraintViolationError, sql: str) -> ConflictError | None:
    if error.sqlstate == UNIQUE_VIOLATION:
        return ConflictError(f"{_subject(error)} is already taken.")
    if error.sqlstate in FOREIGN_KEY_VIOLATIONS:
        if sql.startswith("DELETE"):
            return ConflictError("It cannot be deleted while something else refers to it.")
        return ConflictError(f"{_subject(error)} refers to something that does not exist.")
    return None


def _subject(error: asyncpg.IntegrityConstraintViolationError) -> str:
    """What a constraint guards, by the naming convention: `uq_products_sku` guards the sku."""
    _, _, columns = (error.constraint_name or "").partition(f"_{error.table_name}_")
    return f"This {columns}" if columns else "This"
