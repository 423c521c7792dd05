"""Work after the response: a queue in PostgreSQL, the worker that empties it, and schedules."""

from plinth.jobs.declarations import GiveUp, Job, Run, Task, task
from plinth.jobs.maintenance import QueueNumbers, prune_jobs, queue_numbers
from plinth.jobs.queue import JobQueries, Jobs, JobStatus, once
from plinth.jobs.schedules import Schedule
from plinth.jobs.settings import JobSettings
from plinth.jobs.worker import Worker

__all__ = [
    "GiveUp",
    "Job",
    "JobQueries",
    "JobSettings",
    "JobStatus",
    "Jobs",
    "QueueNumbers",
    "Run",
    "Schedule",
    "Task",
    "Worker",
    "once",
    "prune_jobs",
    "queue_numbers",
    "task",
]
