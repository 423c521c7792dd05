"""A second PostgreSQL, which streams from the first one."""

from pathlib import Path

from plinth.testing.locks import SetupError
from plinth.testing.postgres import Postgres
from plinth.testing.process import Account, output_of


class Standby(Postgres):
    """Its data is a copy of the primary's, made when it is started first."""

    def __init__(self, directory: Path, version: int, primary_url: str) -> None:
        super().__init__(directory, version, durable=False)
        self._primary_url = primary_url

    def _prepare_data(self, binaries: Path) -> Account:
        if not self._data.exists():
            self._data.mkdir(mode=0o700)
            account = self._account(self._data, binaries)
            copy = [str(binaries / "pg_basebackup"), "-R", "-N", "-cfast", "-D", str(self._data)]
            code, output = output_of([*copy, "-d", self._primary_url], self._env, account)
            if code:
                raise SetupError(f"The primary cannot be copied: {output}")
            return account
        return self._account(self._data, binaries)

    def _create_database(self, binaries: Path, port: int) -> None:
        """It cannot, and has the primary's."""
        self.port = port
