"""Embedded PostgreSQL and Valkey: they start, stay apart, and are never two on one directory."""

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import redis

import plinth.testing.postgres
import plinth.testing.valkey
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK, reserved_port
from plinth.testing.servers import running
from tests.tools.support import query, running_in


@pytest.mark.parametrize("version", [16, 18])
def test_both_servers_answer_on_loopback_only(tmp_path: Path, version: int) -> None:
    with running(tmp_path, postgres_version=version) as servers:
        assert query(servers, "SHOW server_version").startswith(f"{version}.")
        assert query(servers, "SELECT current_database()") == plinth.testing.postgres.DATABASE
        assert query(servers, "SHOW listen_addresses") == "127.0.0.1"
        assert query(servers, "SHOW unix_socket_directories") == ""
        assert query(servers, "SHOW fsync") == "off"
        with redis.Redis.from_url(servers.redis_url, decode_responses=True) as cache:
            assert cache.ping()
            assert cache.config_get("bind") == {"bind": "127.0.0.1"}
            assert cache.config_get("unixsocket") == {"unixsocket": ""}
        assert running_in(tmp_path) == {"postgres", "valkey"}
    assert not running_in(tmp_path)


@pytest.fixture
def no_unshare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in most containers, root cannot create namespaces, so PostgreSQL has to run as `nobody`."""
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_namespaces_root_needs_folders_open_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_unshare: None
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(plinth.testing.postgres, "_is_root", lambda: True)
    monkeypatch.setattr("os.chown", lambda *arguments, **options: None)
    with (
        pytest.raises(SetupError, match="run make as an ordinary user, or move the checkout"),
        running(closed / "data"),
    ):
        pass


def test_without_namespaces_postgres_runs_in_open_folders(no_unshare: None) -> None:
    programs_are_open = all(folder.stat().st_mode & 0o001 for folder in Path(sys.prefix).resolve().parents)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        expectation = nullcontext() if programs_are_open or os.geteuid() else pytest.raises(SetupError)
        with expectation, running(Path(directory)) as servers:
            assert query(servers, "SELECT 1") == "1"


def test_two_directories_have_servers_of_their_own(tmp_path: Path) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        query(one, "CREATE TABLE only_here ()", "SELECT 1")
        assert query(two, "SELECT to_regclass('only_here') IS NULL") == "True"
        with redis.Redis.from_url(one.redis_url) as cache, redis.Redis.from_url(two.redis_url) as other:
            cache.set("only_here", 1)
            assert other.get("only_here") is None


def test_a_reserved_port_is_for_servers_that_come_and_go() -> None:
    """Other programs are refused in between, where the system can do that."""
    with reserved_port() as port:
        for _ in range(2):
            with socket.create_server((LOOPBACK, port)):
                pass
            refused = pytest.raises(OSError, match="in use") if sys.platform == "linux" else nullcontext()
            with refused, socket.socket() as other:
                other.bind((LOOPBACK, port))


def test_a_directory_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/one")
    with running(tmp_path), pytest.raises(SetupError, match=r"A run in this checkout is using .*: stop it first"):
        running(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("variable", "value", "started"),
    [("DATABASE_URL", "postgresql://elsewhere/one", "valkey"), ("REDIS_URL", "redis://elsewhere/1", "postgres")],
)
def test_a_given_server_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, started: str
) -> None:
    monkeypatch.setenv(variable, value)
    with running(tmp_path) as servers:
        assert value in {servers.database_url, servers.redis_url}
        assert running_in(tmp_path) == {started}


def other_version(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "postgres").mkdir()
    (directory / "postgres" / "PG_VERSION").write_text("16\n")


def other_owner(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: directory.stat().st_uid + 1)


def no_postgres(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plinth.testing.postgres, "find_spec", lambda name: None)


def no_valkey(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plinth.testing.valkey, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("arrange", "sentence"),
    [
        (other_version, r"was created by PostgreSQL 16, not 18: set PG=16, or run `make clean` to start over\.$"),
        (other_owner, r"belongs to \w+: run make as \w+, or have \w+ run `make clean` first\.$"),
        (no_postgres, r"no embedded PostgreSQL .*: set DATABASE_URL .*, or use `docker compose up`\.$"),
        (no_valkey, r"no embedded Valkey .*: set REDIS_URL .*, or use `docker compose up`\.$"),
    ],
)
def test_an_obstacle_is_reported_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[Path, pytest.MonkeyPatch], None],
    sentence: str,
) -> None:
    arrange(tmp_path, monkeypatch)
    with pytest.raises(SetupError, match=sentence), running(tmp_path):
        pass
    assert not running_in(tmp_path)


def test_an_unknown_version_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="has versions 16 and 18, not 17"), running(tmp_path, postgres_version=17):
        pass
