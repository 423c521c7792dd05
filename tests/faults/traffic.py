"""A load of requests that are sent when they are due, whatever became of those before: a process of its own sends them.

No request is repeated, whatever its answer. The mix is of kinds of requests for tests/faults/fault_app.py.
"""

import json
import subprocess
import sys
from tempfile import NamedTemporaryFile
from typing import NamedTuple, Self

from plinth.testing.environment import child_environment

NO_ANSWER, LOST = 0, 1
"""In place of a status: the patience of the client ended, or the connection."""
CACHED, ROWS = 20, 5000
"""The notes that are read from the cache have lower ids than the first; the second is how many there are."""
LIMIT_PER_SECOND = 10


class Kind(NamedTuple):
    """A kind of request. In its path `{n}` is the number of the request, `{cached}` and `{any}` are ids of notes."""

    method: str
    path: str


KINDS = {
    "health": Kind("GET", "/health/live"),
    "cached": Kind("GET", "/cached/{cached}"),
    "expiring": Kind("GET", "/expiring/{cached}"),
    "read": Kind("GET", "/notes/{any}"),
    "list": Kind("GET", "/notes"),
    "search": Kind("GET", "/notes/search?text={n}"),
    "export": Kind("GET", "/notes/export"),
    "limited": Kind("GET", "/limited/{n}"),
    "write": Kind("POST", "/writes/{n}"),
    "job": Kind("POST", "/writes/{n}?job=true"),
}
MIXES = {
    "faults": {"health": 10, "cached": 25, "expiring": 10, "read": 25, "limited": 10, "write": 15, "job": 5},
    "overload": {"read": 40, "list": 12, "search": 12, "cached": 15, "write": 20, "export": 1},
}
MIXES["without jobs"] = {kind: weight for kind, weight in MIXES["faults"].items() if kind != "job"}


class Answer(NamedTuple):
    kind: str
    number: int
    due: float
    sent: float
    done: float
    status: int
    cache: str = ""
    retry_after: str = ""
    is_problem: bool = False
    is_unknown: bool = False
    """The problem says that a change may have been stored."""
    is_ours: bool = True
    """It belongs to this request: it has its id, and where it has succeeded, what was requested."""

    @property
    def seconds(self) -> float:
        """From the moment at which it was sent. The driver sends it late where the machine is busy."""
        return self.done - self.sent

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300 or (self.kind == "limited" and self.status == 429)


class Traffic:
    """The parent's side: traffic for the length of the block, whose `answers` are there after it."""

    def __init__(self, port: int, mix: str, rate: float, first: int = 0) -> None:
        self._arguments = str(port), mix, str(rate), str(first)
        self.answers: list[Answer] = []
        self.cpu_seconds = 0.0

    def __enter__(self) -> Self:
        self._file = NamedTemporaryFile("r")
        argv = [sys.executable, "-m", "tests.faults.driver", self._file.name, *self._arguments]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, env=child_environment())
        assert self._process.stdout
        assert self._process.stdout.readline() == "sending\n"
        return self

    def __exit__(self, *_: object) -> None:
        with self._file as file:
            self._process.communicate()
            assert self._process.returncode == 0
            first, *lines = file
        count, cpu_seconds = first.split()
        assert len(lines) == int(count)
        self.cpu_seconds = float(cpu_seconds)
        self.answers = [Answer(*json.loads(line)) for line in lines]
