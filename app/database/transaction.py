"""Returning commits; raising rolls back. Nothing else in the service commits."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.database.errors import translate

log = logging.getLogger(__name__)

AFTER_COMMIT = "after_commit"
ON_COMMIT = "on_commit"
"""Of all sessions of a database that has a replica: called as soon as one is committed."""


@asynccontextmanager
async def transaction(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """One unit of work. Raises ConflictError or UnavailableError for what the database refuses, at COMMIT too."""
    try:
        async with sessions() as session, session.begin():
            yield session
    except SQLAlchemyError as error:
        if told := translate(error):
            raise told from error
        raise
    if told_of_commit := session.info.get(ON_COMMIT):
        told_of_commit()
    for callback in session.info.pop(AFTER_COMMIT, ()):
        try:
            await callback()
        except Exception:
            # The work is committed: to answer with an error now would be a lie.
            log.exception("%r failed after the commit", callback)


def after_commit(session: AsyncSession, callback: Callable[[], Awaitable[None]]) -> None:
    """Run `callback` once the transaction is committed and before the response leaves; never after a rollback."""
    session.info.setdefault(AFTER_COMMIT, []).append(callback)
