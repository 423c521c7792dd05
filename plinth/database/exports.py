"""Exports: the rows of a SELECT as text that PostgreSQL writes itself (`COPY … TO STDOUT`), in constant memory.

An export is slow as long as its client is. So each has a connection of its own, for which no other request waits, and a
process runs no more than `DATABASE_EXPORTS` of them at once.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from time import monotonic, perf_counter
from typing import Any, Literal, NamedTuple, TypeAlias

import asyncpg
from sqlalchemy import String, case, func, literal_column, select

from plinth.database.connections import READ_ONLY, driver_arguments
from plinth.database.errors import DRIVER_ERRORS, raise_translated
from plinth.database.operations import Operation
from plinth.database.pulse import Pulse
from plinth.database.query import AnySelect, Query
from plinth.database.settings import DatabaseSettings
from plinth.database.statements import StatementLog
from plinth.errors import UnavailableError

Format: TypeAlias = Literal["ndjson", "json", "csv"]

EXPORTS_BUSY = "Too many exports are running. Try again when one of them has ended."
RECHECK_SECONDS, CLOSE_SECONDS = 0.05, 0.5
# A row of JSON has no control characters, so that with these COPY finds nothing to quote.
AS_IT_IS = {"format": "csv", "delimiter": "\x02", "quote": "\x01"}
CSV = {"format": "csv", "header": True}
# A spreadsheet takes such text for a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = r"^[=+\-@\t\r\n]"


class Export:
    """One export. Its connection is made when it starts, and closed with the block of `Exports.begin`."""

    def __init__(
        self,
        settings: DatabaseSettings,
        application_name: str,
        log: StatementLog | None = None,
        operation: Operation | None = None,
    ) -> None:
        """`operation` is how a pulse watches it."""
        self._arguments = driver_arguments(settings, application_name, READ_ONLY)
        self._log = log or StatementLog(settings)
        self._operation = operation or Operation(monotonic(), None)
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)  # an empty one is the end
        self._connection: asyncpg.Connection | None = None
        self._copying: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def start(self, statement: AnySelect, format: Format, parameters: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Run a SELECT and return its rows once the first are here, so that an error before them can be answered.

        "ndjson" and "json" have an object for each row, named by the labels of the columns. "csv" has the labels as its
        header, and an apostrophe before text that a spreadsheet would take for a formula. An error after the first rows
        is raised where they are read: the response breaks off. Raises UnavailableError.
        """
        sql, arguments = _query(statement, format).bind(parameters)
        try:
            self._connection = await self._operation.connect(asyncpg.connect(**self._arguments))
        except (TimeoutError, *DRIVER_ERRORS) as error:
            raise_translated(error)
        options = CSV if format == "csv" else AS_IT_IS
        started = perf_counter()
        sent = self._log.commented(sql)
        self._copying = asyncio.create_task(self._copy(self._connection, sent, arguments, options))
        first = await self._chunks.get()
        self._log.add(sql, perf_counter() - started, arguments)  # how long the others take depends on the client
        if self._error is not None and not first:
            raise_translated(self._error)
        rows = self._rows(first)
        return _array(rows) if format == "json" else rows

    async def close(self) -> None:
        """Cancel what still runs, on the server too, and close the connection."""
        try:
            while self._copying and not self._copying.done():
                # Again: on Python 3.11 asyncpg loses a cancellation that arrives just as a chunk was taken.
                self._copying.cancel()
                await asyncio.wait([self._copying], timeout=RECHECK_SECONDS)
            if self._connection:
                with suppress(TimeoutError, *DRIVER_ERRORS):
                    await self._connection.close(timeout=CLOSE_SECONDS)
        finally:
            if self._connection and not self._connection.is_closed():
                self._connection.terminate()

    async def _copy(self, connection: asyncpg.Connection, sql: str, arguments: list[Any], options: Any) -> None:
        try:
            await connection.copy_from_query(sql, *arguments, output=self._chunks.put, **options)
        except Exception as error:
            self._error = error
        await self._chunks.put(b"")

    async def _rows(self, chunk: bytes) -> AsyncIterator[bytes]:
        while chunk:
            yield bytes(chunk)  # asyncpg's are bytearrays
            chunk = await self._chunks.get()
        if self._error is not None:
            raise self._error


class Exports:
    """The exports of a process."""

    def __init__(self, settings: DatabaseSettings, application_name: str, log: StatementLog, pulse: Pulse) -> None:
        # Past a pooler, whose server connection each would hold; and with more time than any other statement has.
        self._settings = settings.direct.model_copy(update={"statement_timeout_seconds": settings.export_seconds})
        self._application_name = application_name
        self._log = log
        self._pulse = pulse
        self.running = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Export]:
        """Raises UnavailableError where as many are running as may."""
        if self.running >= self._settings.exports:
            raise UnavailableError(EXPORTS_BUSY)
        self._pulse.check()
        self.running += 1
        operation = self._pulse.begin()
        export = Export(self._settings, self._application_name, self._log, operation)
        try:
            yield export
        finally:
            try:
                await export.close()
            finally:
                self._pulse.end(operation)
                self.running -= 1


def _query(statement: AnySelect, format: Format) -> Query[Any]:
    exported = statement.subquery("exported")
    if format != "csv":
        return Query(str, select(func.row_to_json(literal_column("exported"))).select_from(exported))
    columns = [
        case((column.regexp_match(FORMULA), "'" + column), else_=column).label(column.key)
        if isinstance(column.type, String)
        else column
        for column in exported.c
    ]
    row: Any = NamedTuple("Exported", [(str(column.key), Any) for column in columns])  # type: ignore[misc]
    return Query(row, select(*columns))


async def _array(rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A JSON array of lines; its end is sent only after the last row."""
    before = b"["
    async for chunk in rows:
        yield before + chunk.rstrip(b"\n").replace(b"\n", b",\n")
        before = b",\n"
    yield b"]\n" if before != b"[" else b"[]\n"
