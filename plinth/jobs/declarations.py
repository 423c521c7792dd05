"""What a service declares: its jobs, and the tasks that do them.

A `Job` names a kind of work and the type of its payload; code that enqueues it needs nothing else. A `Task` is the
function that does it, with its limits; only the worker imports it.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel

PayloadT = TypeVar("PayloadT", bound=BaseModel)
StateT = TypeVar("StateT")

LONGEST_BACKOFF_SECONDS = 3600.0


class GiveUp(Exception):  # noqa: N818 - it reads as what it does
    """Raise it in a task whose failure no further attempt would mend. Its text is kept as the reason."""


@dataclass(frozen=True)
class Job(Generic[PayloadT]):
    """A kind of work. Its name and its payload's fields are stored, so that both outlive the code that enqueued it."""

    name: str
    payload: type[PayloadT]
    queue: str = "default"

    def __post_init__(self) -> None:
        for text in (self.name, self.queue):
            if not text.isidentifier() or len(text) > 100:
                raise ValueError(f"{text!r}: the name of a job or a queue is an identifier of at most 100 characters.")
        if _hides_a_value(self.payload.model_json_schema(mode="serialization")):
            raise TypeError(f"{self.payload.__name__} has a SecretStr, which would be stored as asterisks.")


@dataclass(frozen=True, eq=False)
class Run(Generic[StateT]):
    """One attempt at a job, which its task is called with."""

    id: UUID
    """The job's, which is the same in every attempt."""
    attempt: int
    """1 for the first."""
    is_last: bool
    """Whether a failure ends the job."""
    state: StateT
    """What the lifespan of the worker opened."""
    _report: Callable[[int], Awaitable[None]] = field(repr=False)

    async def progress(self, percent: int) -> None:
        """Store how far the attempt is. Visible at once, whether or not the task commits anything."""
        await self._report(max(0, min(percent, 100)))


@dataclass(frozen=True, eq=False)
class Task(Generic[StateT, PayloadT]):
    """A function that does a job, and how often and how long it is tried. Made by `task`."""

    job: Job[PayloadT]
    function: Callable[[Run[StateT], PayloadT], Awaitable[None]]
    timeout_seconds: float
    attempts: int
    backoff_seconds: float

    async def __call__(self, run: Run[StateT], payload: PayloadT) -> None:
        await self.function(run, payload)

    def pause_after(self, attempt: int) -> float:
        """Seconds until the next attempt: twice as long after each, with jitter so that failures do not gather."""
        longest = min(self.backoff_seconds * 2.0 ** min(attempt - 1, 60), LONGEST_BACKOFF_SECONDS)
        return longest * random.uniform(0.5, 1)


def task(
    job: Job[PayloadT], *, timeout_seconds: float = 60.0, attempts: int = 5, backoff_seconds: float = 5.0
) -> Callable[[Callable[[Run[StateT], PayloadT], Awaitable[None]]], Task[StateT, PayloadT]]:
    """Make a `Task` of the function below: at most `attempts` attempts of `timeout_seconds` each.

    Between two attempts there are `backoff_seconds`, doubled after each failure, up to an hour.
    """
    if attempts < 1 or timeout_seconds <= 0 or backoff_seconds < 0:
        raise ValueError(f"{job.name}: attempts and timeout_seconds must be positive, backoff_seconds not negative.")

    def decorate(function: Callable[[Run[StateT], PayloadT], Awaitable[None]]) -> Task[StateT, PayloadT]:
        return Task(job, function, timeout_seconds, attempts, backoff_seconds)

    return decorate


def _hides_a_value(schema: dict[str, Any]) -> bool:
    return b'"format":"password"' in orjson.dumps(schema)
