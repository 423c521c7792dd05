"""One attempt at a job: its payload is parsed, its task is called in the context of the request that enqueued it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import orjson
from opentelemetry import context, propagate
from pydantic import ValidationError

from plinth.jobs.claims import Claim, Outcome
from plinth.jobs.declarations import GiveUp, Run, Task
from plinth.resilience import deadline
from plinth.telemetry import request_id

log = logging.getLogger(__name__)


async def attempt(
    task: Task[Any, Any], claim: Claim, state: object, report: Callable[[Claim, int], Awaitable[None]]
) -> Outcome:
    """Run the task and return what becomes of the job. Raises CancelledError where the attempt is interrupted."""
    carrier: dict[str, str] = orjson.loads(claim.context)
    request_id.set(carrier.get("request_id"))
    token = context.attach(propagate.extract(carrier))
    began = monotonic()
    try:
        outcome = await _outcome(task, claim, state, report)
    finally:
        context.detach(token)
    fields = {
        "job": claim.name,
        "job_id": str(claim.id),
        "attempt": claim.attempt,
        "outcome": "retried" if outcome.state == "queued" else outcome.state,
        "duration_ms": round((monotonic() - began) * 1000, 3),
    }
    level = {"succeeded": logging.INFO, "queued": logging.WARNING}.get(outcome.state, logging.ERROR)
    log.log(level, "%(job)s %(outcome)s in attempt %(attempt)d", fields)
    return outcome


async def _outcome(
    task: Task[Any, Any], claim: Claim, state: object, report: Callable[[Claim, int], Awaitable[None]]
) -> Outcome:
    if claim.attempt > task.attempts:
        return Outcome(claim, "dead", f"Its process ended in attempt {claim.attempt - 1}.", is_refunded=True)
    try:
        payload = task.job.payload.model_validate_json(claim.payload)
    except ValidationError as error:
        return Outcome(claim, "dead", _misfit(task, error))

    async def report_percent(percent: int) -> None:
        await report(claim, percent)

    run = Run(claim.id, claim.attempt, claim.attempt == task.attempts, state, report_percent)
    try:
        # A commit lifts a deadline, and a job may have several. What it calls sees the deadline.
        async with asyncio.timeout(task.timeout_seconds) as timeout, deadline(task.timeout_seconds):
            await task.function(run, payload)
    except GiveUp as error:
        return Outcome(claim, "dead", str(error))
    except Exception as error:
        log.exception("Attempt %d of %s failed", claim.attempt, claim.name)
        reason = f"{type(error).__name__}: {error}"
        if timeout.expired():
            reason = f"It took longer than {task.timeout_seconds:g} s."
        if run.is_last:
            return Outcome(claim, "dead", reason)
        return Outcome(claim, "queued", reason, task.pause_after(claim.attempt))
    return Outcome(claim, "succeeded")


def _misfit(task: Task[Any, Any], error: ValidationError) -> str:
    """Without the values, which may be secret."""
    faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)[:10]]
    return f"The payload is no {task.job.payload.__name__}: {'; '.join(faults)}"
