"""Locks on pid files, and servers that an earlier run left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import plinth.testing.locks
from plinth.testing.locks import SetupError, acquire


@contextmanager
def left_behind(pid_file: Path, setup: str = "pass") -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock, as the servers do, without a Process object that could stop it."""
    lock = acquire(pid_file, "It", signal.SIGTERM)
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal; {setup}; print(flush=True); signal.pause()"],
        pass_fds=[lock],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.readline()
    os.pwrite(lock, str(process.pid).encode(), 0)
    os.close(lock)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_leftover_server_gets_its_stop_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    monkeypatch.setattr(plinth.testing.locks, "STOP_SECONDS", 5)
    with left_behind(tmp_path / "it.pid") as process:
        if frozen:
            process.send_signal(signal.SIGSTOP)
        os.close(acquire(tmp_path / "it.pid", "It", signal.SIGTERM))
        assert process.wait() == -signal.SIGTERM


def test_a_leftover_server_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plinth.testing.locks, "STOP_SECONDS", 0.1)
    with left_behind(tmp_path / "it.pid", "signal.signal(signal.SIGTERM, signal.SIG_IGN)") as process:
        os.close(acquire(tmp_path / "it.pid", "It", signal.SIGTERM))
        assert process.wait() == -signal.SIGKILL


def test_a_lock_holder_without_a_process_id_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plinth.testing.locks, "STOP_SECONDS", 0.1)
    with left_behind(tmp_path / "it.pid"):
        (tmp_path / "it.pid").write_text("")
        with pytest.raises(SetupError, match=r"It of an earlier run .* does not stop: end it, then try again\."):
            acquire(tmp_path / "it.pid", "It", signal.SIGTERM)


def test_a_stale_pid_file_stops_no_other_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        (tmp_path / "it.pid").write_text(str(bystander.pid))
        os.close(acquire(tmp_path / "it.pid", "It", signal.SIGKILL))
        bystander.communicate(b"\n")
        assert bystander.returncode == 0
