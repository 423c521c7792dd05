"""Work after the response: a queue in PostgreSQL, the worker that empties it, schedules, and mail."""

from plinth.jobs.declarations import GiveUp, Job, Run, Task, task
from plinth.jobs.mail import Mailer, open_mailer
from plinth.jobs.mail_settings import MailSettings
from plinth.jobs.maintenance import QueueNumbers, prune_jobs, queue_metrics, queue_numbers
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
    "MailSettings",
    "Mailer",
    "QueueNumbers",
    "Run",
    "Schedule",
    "Task",
    "Worker",
    "once",
    "open_mailer",
    "prune_jobs",
    "queue_metrics",
    "queue_numbers",
    "task",
]
