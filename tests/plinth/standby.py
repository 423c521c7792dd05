"""A second PostgreSQL, which streams from the first one."""

import os
from pathlib import Path

import asyncpg

from plinth.testing.locks import SetupError
from plinth.testing.postgres import Postgres
from plinth.testing.process import Account, output_of


class Standby(Postgres):
    """Its data is a copy of the primary's, made when it is started first.

    A replication slot makes the primary keep what it has not received yet. Without one, it could never catch up after a
    restart during which another test dropped a database: that makes a checkpoint, which removes older WAL segments.
    """

    def __init__(self, directory: Path, version: int, port: int, primary_url: str) -> None:
        super().__init__(directory, version, durable=False, port=port)
        self._slot = f"standby_{os.getpid()}"
        self._primary_url = primary_url

    async def drop_slot(self, primary: asyncpg.Connection) -> None:
        ours = f"FROM pg_replication_slots WHERE slot_name = '{self._slot}'"
        await primary.execute(f"SELECT pg_terminate_backend(active_pid, 10_000) {ours}")  # it may not have noticed yet
        await primary.execute(f"SELECT pg_drop_replication_slot(slot_name) {ours}")

    def _prepare_data(self, binaries: Path) -> Account:
        if self._data.exists():
            return self._account(self._data, binaries)
        self._data.mkdir(mode=0o700)
        account = self._account(self._data, binaries)
        copy = [str(binaries / "pg_basebackup"), "-R", "-N", "-cfast", "-C", "-S", self._slot, "-D", str(self._data)]
        code, output = output_of([*copy, "-d", self._primary_url], self._env, account)
        if code:
            raise SetupError(f"The primary cannot be copied: {output}")
        return account

    def _create_database(self, binaries: Path) -> None:
        """It cannot, and has the primary's."""
