"""PostgreSQL: sessions for changes, reads without a transaction, keyset pages, optimistic locking."""

from plinth.database.engine import Database, open_database
from plinth.database.keyset import Keyset, KeysetPage
from plinth.database.query import Query, Readable
from plinth.database.reads import Reads
from plinth.database.sessions import Session, Versions, check_version
from plinth.database.settings import DatabaseSettings
from plinth.database.types import Money

__all__ = [
    "Database",
    "DatabaseSettings",
    "Keyset",
    "KeysetPage",
    "Money",
    "Query",
    "Readable",
    "Reads",
    "Session",
    "Versions",
    "check_version",
    "open_database",
]
