"""One attempt at a job: its payload is parsed, its task is called in the context of the request that enqueued it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import orjson
from opentelemetry import context, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError

from plinth.jobs.claims import Claim, Outcome
from plinth.jobs.declarations import GiveUp, Run, Task
from plinth.resilience import deadline
from plinth.telemetry import request_id
from plinth.telemetry.metrics import JOB_ATTEMPTS, JOB_SECONDS_TAKEN
from plinth.telemetry.requests import RequestRecord, current_record

log = logging.getLogger(__name__)
TRACER = trace.get_tracer("plinth.jobs")


async def attempt(
    task: Task[Any, Any], claim: Claim, state: object, report: Callable[[Claim, int], Awaitable[None]]
) -> Outcome:
    """Run the task and return what becomes of the job. Raises CancelledError where the attempt is interrupted."""
    carrier: dict[str, str] = orjson.loads(claim.context)
    request_id.set(carrier.get("request_id"))
    current_record.set(RequestRecord(job=claim.name))
    context.attach(propagate.extract(carrier))  # not detached: the attempt has an asyncio task of its own
    fields: dict[str, Any] = {"job": claim.name, "job_id": str(claim.id), "attempt": claim.attempt}
    attributes: dict[str, str | int] = {"job.id": fields["job_id"], "job.attempt": claim.attempt}
    with TRACER.start_as_current_span(f"job {claim.name}", kind=SpanKind.CONSUMER, attributes=attributes) as span:
        began = monotonic()
        outcome = await _outcome(task, claim, state, report)
        seconds = monotonic() - began
        result = "retried" if outcome.state == "queued" else outcome.state
        JOB_ATTEMPTS.labels(claim.name, result).inc()
        JOB_SECONDS_TAKEN.labels(claim.name).observe(seconds)
        fields |= {"outcome": result, "duration_ms": round(seconds * 1000, 3)}
        span.set_attribute("job.outcome", result)
        if outcome.state != "succeeded":
            span.set_status(StatusCode.ERROR)
        level = {"succeeded": logging.INFO, "queued": logging.WARNING}.get(outcome.state, logging.ERROR)
        message = "%(job)s %(outcome)s in attempt %(attempt)d"
        log.log(level, message, fields, exc_info=outcome.error, extra={"event": "job"})
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
        return Outcome(claim, "dead", str(error), error=error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if timeout.expired():
            reason = f"It took longer than {task.timeout_seconds:g} s."
        if run.is_last:
            return Outcome(claim, "dead", reason, error=error)
        return Outcome(claim, "queued", reason, task.pause_after(claim.attempt), error=error)
    return Outcome(claim, "succeeded")


def _misfit(task: Task[Any, Any], error: ValidationError) -> str:
    """Without the values, which may be secret."""
    faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)[:10]]
    return f"The payload is no {task.job.payload.__name__}: {'; '.join(faults)}"
