"""Child processes that are never orphaned.

This process stops them; if it is killed, the kernel does (on Linux), or else the next run finds and stops them.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plinth.testing.locks import STOP_SECONDS, acquire

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """The account that a process runs as; by default that of this process."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}


OURS = Account()


def output_of(argv: Sequence[str], env: Mapping[str, str], account: Account = OURS) -> tuple[int, str]:
    """Run a program to completion and return its exit code and output."""
    done = subprocess.run(
        [*account.prefix, *argv],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **account.options,
    )
    return done.returncode, done.stdout.strip()


class Process:
    """A server in the background, which holds the lock on `<file>.pid` while it runs.

    It has a session of its own, so Ctrl-C reaches only this process, which stops its servers in order.
    """

    def __init__(self, name: str, directory: Path, file: str, stop_signal: signal.Signals) -> None:
        self.name = name
        self.log = directory / f"{file}.log"
        self._pid_file = directory / f"{file}.pid"
        self._stop_signal = stop_signal
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll() if self._popen else None

    def end_leftover(self) -> None:
        os.close(acquire(self._pid_file, self.name, self._stop_signal))

    def start(self, argv: Sequence[str], env: Mapping[str, str], account: Account = OURS) -> None:
        with self.log.open("wb") as log:
            self._start([*account.prefix, *argv], env, account, log.fileno())

    def start_in_terminal(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it attached to the terminal, so that it can print and a debugger can read the keyboard."""
        self._start(argv, env, OURS, None)

    def _start(self, argv: Sequence[str], env: Mapping[str, str], account: Account, log: int | None) -> None:
        lock = acquire(self._pid_file, self.name, self._stop_signal)
        try:
            with _signals_held() as mask:
                self._popen = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=None if log is None else subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[lock],
                    preexec_fn=self._in_child(lock, mask),  # noqa: PLW1509 - there are no threads
                    **account.options,
                )
        finally:
            os.close(lock)  # the child holds the lock now

    def _in_child(self, lock: int, mask: set[signal.Signals]) -> Callable[[], None]:
        parent = os.getpid()

        def prepare() -> None:
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"%d" % os.getpid(), 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if _prctl:
                _prctl(PR_SET_PDEATHSIG, self._stop_signal)
            if os.getppid() != parent:
                os._exit(1)  # the parent died before prctl took effect

        return prepare

    def stop(self) -> None:
        if self._popen is None:
            return
        self._popen.send_signal(self._stop_signal)
        self._popen.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):  # macOS raises PermissionError for a group that has ended
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


@contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    """Block stop signals, so that none arrives between the start of a process and the assignment of its handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield {signal.Signals(number) for number in before}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
