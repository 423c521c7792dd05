"""Embedded servers after a crash: no data is lost, and no server is started twice."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import redis

from plinth.testing.servers import running
from tests.tools.support import command, pids, plain_environment, query, running_in

RUN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from urllib.parse import urlsplit
from plinth.testing.servers import running

with running(Path(sys.argv[1]), durable=True) as servers:
    print(urlsplit(servers.database_url).port, urlsplit(servers.redis_url).port, flush=True)
    for process in servers.processes:
        os.kill(process.pid, getattr(signal, sys.argv[2]))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_data_survives_a_kill_of_everything_and_a_reused_process_id(tmp_path: Path) -> None:
    with running(tmp_path, durable=True) as servers, redis.Redis.from_url(servers.redis_url) as cache:
        query(servers, "CREATE TABLE kept AS SELECT 7 AS value", "SELECT 1")
        cache.set("kept", 7)
        for pid in pids(tmp_path).values():
            os.kill(pid, signal.SIGKILL)
    pid_file = tmp_path / "postgres" / "postmaster.pid"
    another = str(os.getppid())
    pid_file.write_text("\n".join([another, *pid_file.read_text().splitlines()[1:]]))

    with running(tmp_path, durable=True) as servers, redis.Redis.from_url(servers.redis_url) as cache:
        assert query(servers, "SELECT value FROM kept") == "7"
        assert cache.get("kept") == b"7"


def run_and_die(directory: Path, signal_to_servers: str) -> list[int]:
    """Start servers and kill the run that started them. Returns their ports."""
    argv = [sys.executable, "-c", RUN_AND_DIE, str(directory), signal_to_servers]
    with command(argv, directory, plain_environment()) as terminal:
        code, printed = terminal.end()
    assert code == -signal.SIGKILL
    return [int(port) for port in printed.split()]


def test_servers_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    run_and_die(tmp_path, "SIGCONT")
    if sys.platform != "linux":
        with running(tmp_path, durable=True):
            pass  # on other systems, the next run stops them
    assert not running_in(tmp_path, seconds=10)


def test_orphans_are_stopped_before_new_servers_start(tmp_path: Path) -> None:
    # Stopped by SIGSTOP, they cannot react to the death of their parent.
    orphans = run_and_die(tmp_path, "SIGSTOP")
    assert running_in(tmp_path) == {"postgres", "valkey"}

    with running(tmp_path, durable=True) as servers:
        assert query(servers, "SELECT 1") == "1"
    for port in orphans:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_an_interrupted_start_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    with running(tmp_path) as servers:
        assert query(servers, "SELECT 1") == "1"
