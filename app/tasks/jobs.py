from datetime import timedelta

from app.dependencies import WorkerState
from app.jobs import PRUNE_JOBS, PruneJobs
from plinth.jobs import Run, prune_jobs, task
from plinth.security import prune_audit, prune_idempotency_keys

BATCH = 10_000


@task(PRUNE_JOBS, timeout_seconds=3600)
async def prune(run: Run[WorkerState], limits: PruneJobs) -> None:
    """Delete old jobs, Idempotency-Keys and entries of the audit trail, in transactions that are short."""
    finished, dead = timedelta(days=limits.finished_days), timedelta(days=limits.dead_days)
    deleted = BATCH
    while deleted == BATCH:
        async with run.state["database"].sessions.begin() as session:
            deleted = await prune_jobs(session, finished, dead, BATCH)
    deleted = BATCH
    while deleted == BATCH:
        async with run.state["database"].sessions.begin() as session:
            deleted = await prune_idempotency_keys(session, timedelta(hours=limits.keys_hours), BATCH)
    deleted = BATCH
    while deleted == BATCH:
        async with run.state["database"].sessions.begin() as session:
            deleted = await prune_audit(session, timedelta(days=limits.audit_days), BATCH)
