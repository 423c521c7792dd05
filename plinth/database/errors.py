"""What PostgreSQL refuses is told in the service's own words; its text never leaves the log."""

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import StaleDataError

from plinth.errors import AppError, ConflictError, UnavailableError

DATABASE_AWAY = "The database cannot be reached; try again in a moment."
DATABASE_BUSY = "Every database connection is busy; try again in a moment."

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)

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
CHANGED_MEANWHILE = ConflictError, "Somebody else changed the same data at the same time; try again."
TOO_SLOW = UnavailableError, "The database took too long to answer; try again in a moment."
PASSING = {
    "40001": CHANGED_MEANWHILE,  # serialization failure
    "40P01": CHANGED_MEANWHILE,  # deadlock
    "57014": TOO_SLOW,  # statement timeout
    "55P03": TOO_SLOW,  # lock timeout
}


def translate(error: Exception, sql: str = "") -> AppError | None:
    """The AppError that a client may see in place of a database error; None where there is none."""
    if isinstance(error, TimeoutError) or is_connection_lost(error):
        return UnavailableError(DATABASE_AWAY)
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        return _conflict(cause, getattr(error, "statement", None) or sql)
    kind, message = PASSING.get(_sqlstate(error), (None, ""))
    return kind(message) if kind else None


def may_be_repeated(error: BaseException) -> bool:
    """Of what changes nothing: its connection had died, which tells nothing of another."""
    return isinstance(error, DRIVER_ERRORS) and not isinstance(error, TimeoutError) and is_connection_lost(error)


def is_connection_lost(error: Exception) -> bool:
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.InterfaceError):
        return "closed" in str(cause)  # it has no code
    code = _sqlstate(error)
    return isinstance(cause, OSError) or code.startswith("08") or code in CONNECTION_LOST


def _sqlstate(error: Exception) -> str:
    if isinstance(error, StaleDataError):  # the session's own word, of a `version_id_col`
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
            return ConflictError("Something else still refers to it, so it cannot be deleted.")
        return ConflictError(f"{_subject(error)} refers to something that does not exist.")
    return None


def _subject(error: asyncpg.IntegrityConstraintViolationError) -> str:
    """What a constraint guards, by our naming convention: `uq_products_sku` guards this sku."""
    _, _, columns = (error.constraint_name or "").partition(f"_{error.table_name}_")
    return f"This {columns}" if columns else "This"
