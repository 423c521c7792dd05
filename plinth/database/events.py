"""SQLAlchemy's events, with which a stock engine keeps the promises of a transaction.

See https://docs.sqlalchemy.org/en/21/core/events.html.
"""

from time import monotonic, perf_counter
from typing import Any

import asyncpg
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError

from plinth.database.errors import DATABASE_AWAY, is_connection_lost
from plinth.database.operations import Operation, acquiring
from plinth.database.pulse import Pulse
from plinth.database.statements import StatementLog
from plinth.errors import UnavailableError

_FAILED = "plinth.failed"
_STATEMENT = "plinth.statement"
_GENERATION = "plinth.generation"
_MADE_AT = "plinth.made_at"
REPLACE_SECONDS = 1.0
"""A connection to a server that only reads is replaced, but not sooner: a new one often leads to the same server."""
NOTHING_COMMITTED = (
    "Nothing was committed: a statement failed and its error was caught. "
    "Use `async with session.begin_nested()` around what may fail."
)


def listen(engine: Engine, log: StatementLog, pulse: Pulse) -> None:
    def note_generation(_connection: Any, record: Any) -> None:
        record.info[_GENERATION] = pulse.number
        record.info[_MADE_AT] = monotonic()

    def refuse_lost(connection: Any, record: Any, _proxy: Any) -> None:
        """The pool replaces a connection that has died. Unlike a pre-ping, this costs no round trip."""
        if record.info[_GENERATION] != pulse.number:
            connection.driver_connection.terminate()  # a polite end would wait for a server that may be gone
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    def handle_error(context: ExceptionContext) -> None:
        """After an error PostgreSQL refuses every statement but ROLLBACK, and answers COMMIT by rolling back."""
        error = context.original_exception
        if context.statement is not None and context.connection is not None and not context.connection.invalidated:
            log_time(context.connection)  # the slowest statements are those that run into their timeout
        if context.connection is not None and not context.is_disconnect:
            _info(context.connection)[_FAILED] = True
        cause = _cause(context.dialect, error)
        if not isinstance(cause, Exception) or not is_connection_lost(cause):
            return
        if isinstance(cause, asyncpg.ReadOnlySQLTransactionError) and _is_new(context.connection):
            return
        # SQLAlchemy recognises only a connection that is closed already. The others are replaced at checkout.
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        if (connection := context.connection) is not None and not connection.invalidated:
            if not isinstance(error, TimeoutError):  # of one statement that was not answered
                pulse.lost(_info(connection).get(_GENERATION))
            driver: Any = connection.connection.driver_connection
            driver.terminate()
        if isinstance(error, OSError):
            # The driver's own. An OSError of other code in the transaction does not come through here.
            raise UnavailableError(DATABASE_AWAY) from error

    event.listen(engine, "connect", note_generation)
    event.listen(engine, "checkout", refuse_lost)
    event.listen(engine, "handle_error", handle_error)
    event.listen(engine, "begin", _forget_failure)
    event.listen(engine, "rollback_savepoint", _forget_failure)
    event.listen(engine, "commit", _refuse_failed)

    def send_commented(
        connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, is_batch: bool
    ) -> tuple[str, Any]:
        connection.info[_STATEMENT] = statement, parameters, is_batch, perf_counter()
        return log.commented(statement), parameters

    def log_time(connection: Connection, *_: Any) -> None:
        if sent := _info(connection).pop(_STATEMENT, None):
            statement, parameters, is_batch, started_at = sent
            log.add(statement, perf_counter() - started_at, parameters, is_batch)

    event.listen(engine, "before_cursor_execute", send_commented, retval=True)
    event.listen(engine, "after_cursor_execute", log_time)
    _watch(engine, pulse)


def _watch(engine: Engine, pulse: Pulse) -> None:
    """Let `pulse` watch the connections in use. Its listener of `checkout` is called after that of `listen`."""
    in_use: dict[Any, Operation] = {}

    def connect(dialect: Dialect, _record: Any, arguments: Any, options: Any) -> Any:
        pulse.check()
        operation = acquiring.get()

        # What create_async_engine(async_creator=…) gives to the dialect, which here keeps its own arguments as well.
        async def create(*arguments: Any, **options: Any) -> Any:
            connecting = pulse.connect(*arguments, **options)
            return await (connecting if operation is None else operation.connect(connecting))

        try:
            return dialect.connect(*arguments, async_creator_fn=create, **options)
        except Exception as error:
            cause = _cause(dialect, error)
            if isinstance(cause, Exception) and is_connection_lost(cause):
                raise UnavailableError(DATABASE_AWAY) from cause
            raise

    def begin(connection: Any, record: Any, _proxy: Any) -> None:
        in_use[record] = pulse.begin(connection.driver_connection)

    def end(_connection: Any, record: Any) -> None:
        if operation := in_use.pop(record, None):
            pulse.end(operation)

    def note_answer(*_: Any) -> None:
        pulse.answers += 1

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", begin)
    event.listen(engine, "checkin", end)
    event.listen(engine, "after_cursor_execute", note_answer)


def _info(connection: Connection) -> Any:
    """SQLAlchemy runs statements of its own on the first connection of an engine, which has no `info` then."""
    try:
        return connection.info
    except NotImplementedError:
        return {}


def _is_new(connection: Connection | None) -> bool:
    return connection is not None and monotonic() - _info(connection).get(_MADE_AT, 0.0) < REPLACE_SECONDS


def _cause(dialect: Dialect, error: BaseException) -> BaseException | None:
    """asyncpg's error, which the dialect wraps."""
    return error.__cause__ if isinstance(error, dialect.loaded_dbapi.Error) else error


def _forget_failure(connection: Connection, *_: Any) -> None:
    if not connection.invalidated:
        connection.info.pop(_FAILED, None)


def _refuse_failed(connection: Connection) -> None:
    if not connection.invalidated and connection.info.get(_FAILED):
        raise RuntimeError(NOTHING_COMMITTED)
