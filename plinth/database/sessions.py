"""Changes: a stock `AsyncSession` of a stock pool, in a transaction. Returning commits, raising rolls back.

async with sessions.begin() as session:
    session.add(Category(name="Lamps"))

Nothing else in a service commits: repositories flush.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from plinth.database.cursors import Cursors
from plinth.database.errors import DRIVER_ERRORS, OUTCOME_UNKNOWN, is_outcome_unknown, raise_translated
from plinth.database.notifications import NOTIFY
from plinth.database.query import Query
from plinth.errors import ChangedError, OutcomeUnknownError, UnavailableError
from plinth.resilience.deadline import lift

log = logging.getLogger(__name__)

RowT = TypeVar("RowT")
Versions: TypeAlias = Collection[int] | Callable[[int | None, datetime | None], bool] | None
"""The versions that a change may be made to, or a function that accepts a version and its instant; None is any.

The function is called with None for the version of what is not there."""

ROLLBACK_SECONDS = 2.0
BUSY_SECONDS = 0.01
CONCURRENT_USE = "isce"  # https://sqlalche.me/e/21/isce


class Session(AsyncSession):
    """SQLAlchemy's AsyncSession; everything in SQLAlchemy's manual works in it."""

    def __init__(self, *args: Any, cursors: Cursors | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursors = cursors or Cursors()
        self.callbacks: list[tuple[Callable[[], Awaitable[None]], bool]] = []
        self.rollback_callbacks: list[Callable[[], Awaitable[None]]] = []

    async def all(self, query: Query[RowT], /, **parameters: Any) -> list[RowT]:
        """Run the same `Query` that `Reads` runs, inside of the transaction: it sees what was flushed."""
        return [query.row(*row) for row in await self.execute(query.statement, parameters)]

    async def first(self, query: Query[RowT], /, **parameters: Any) -> RowT | None:
        row = (await self.execute(query.statement, parameters)).first()
        return None if row is None else query.row(*row)

    async def notify(self, topic: str) -> None:
        """Wake what watches `topic` in any process (`Notifications.watch`), once this transaction is committed.

        Transactions that notify the same topic take turns, from here to their commits. So rows that are added after
        this become visible in the order of their ids, and "the rows after this one" lacks none. Without the turns, the
        one with the lower id could commit last. Call it last but for those rows, or two could wait for each other.
        """
        await self.execute(text(NOTIFY), {"topic": topic})

    def after_commit(self, callback: Callable[[], Awaitable[None]], *, certain: bool = False) -> None:
        """Run `callback` after the commit and before the response; never after a rollback.

        It also runs where the connection is lost during COMMIT, since the transaction may have been committed; not if
        it has to be `certain`, as for deleting what a row no longer names.
        """
        self.callbacks.append((callback, certain))

    def after_rollback(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Run `callback` once it is certain that nothing is committed, for what was done outside of the database."""
        self.rollback_callbacks.append(callback)


class Sessions:
    """Begins transactions on an engine. `on_commit` is called after each that may have changed something."""

    def __init__(
        self,
        engine: AsyncEngine,
        on_commit: Callable[[], None] | None = None,
        cursors: Cursors | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """`check` raises UnavailableError where a transaction need not be begun."""
        self._engine = engine
        self._check = check or (lambda: None)
        self._on_commit = on_commit
        self._cursors = cursors

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Session]:
        """A session whose transaction begins with its first statement, which is when it takes a connection.

        Raises ConflictError, InvalidError or UnavailableError for what the database refuses, at COMMIT too, and
        OutcomeUnknownError where the answer to COMMIT is lost.
        """
        self._check()
        may_be_committed = is_certain = False
        session = Session(self._engine, cursors=self._cursors, expire_on_commit=False, close_resets_only=False)
        try:
            async with session.begin():
                try:
                    yield session
                    if session.new or session.dirty or session.deleted:
                        await session.flush()
                    lift()  # a commit is not interrupted, and after it the answer is that it was made
                except BaseException:
                    await _roll_back(session)
                    raise
                may_be_committed = session.in_transaction()
            is_certain = True
        except (SQLAlchemyError, asyncpg.PostgresError) as error:
            may_be_committed = may_be_committed and is_outcome_unknown(error)
            if may_be_committed:
                raise OutcomeUnknownError(OUTCOME_UNKNOWN) from error
            raise_translated(error)
        except UnavailableError as error:
            if may_be_committed:  # COMMIT was not answered in time
                raise OutcomeUnknownError(OUTCOME_UNKNOWN) from error.__cause__
            raise
        except Exception:
            may_be_committed = False
            raise
        finally:
            await session.close()  # sends nothing, since the transaction has ended
            if may_be_committed and self._on_commit is not None:
                self._on_commit()
            committed = [callback for callback, certain in session.callbacks if is_certain or not certain]
            await _run(committed if may_be_committed else session.rollback_callbacks)


async def _run(callbacks: list[Callable[[], Awaitable[None]]]) -> None:
    cancelled: asyncio.CancelledError | None = None
    for callback in callbacks:
        try:
            await callback()
        except asyncio.CancelledError as error:
            cancelled = error  # the remaining callbacks still have to run
        except Exception:
            # The transaction has ended: another error would deny what became of it.
            log.exception("%r failed after the transaction", callback)
    if cancelled is not None:
        raise cancelled


async def _roll_back(session: Session) -> None:
    """PostgreSQL rolls back when a connection ends, so one that cannot be rolled back soon is closed instead."""
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):
            await session.rollback()
    except (SQLAlchemyError, *DRIVER_ERRORS, UnavailableError):
        log.info("A connection is closed because it could not be rolled back", exc_info=True)
        await _invalidate(session)


async def _invalidate(session: Session) -> None:
    """Close the connection, once no other task takes one for the session: `asyncio.gather()` leaves such tasks.

    Returned to the pool, it would carry what they still execute into the transaction of another request.
    """
    while True:
        try:
            await session.invalidate()
            return
        except InvalidRequestError as error:
            if error.code != CONCURRENT_USE:
                raise
            await asyncio.sleep(BUSY_SECONDS)


class Versioned(Protocol):
    """An entity whose mapper has a `version_id_col`."""

    @property
    def id(self) -> object: ...

    @property
    def version(self) -> int: ...


def check_version(entity: Versioned | None, versions: Versions, resource: str = "resource", id: object = "") -> None:
    """Raise ChangedError unless `versions` accept the version of the entity and its `updated_at`, if it has one.

    Read the entity with a lock (`session.get(…, with_for_update=True)`): of two changes at once, the second then waits
    and reads the version that the first has made.

    It is None where the change creates the resource with this id: `If-Match` refuses that, `If-None-Match` does not.
    """
    if versions is None:
        return
    version = entity.version if entity else None
    accepted = versions(version, getattr(entity, "updated_at", None)) if callable(versions) else version in versions
    if not accepted:
        raise ChangedError(type(entity).__name__.lower() if entity else resource, str(entity.id if entity else id))
