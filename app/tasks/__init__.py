"""What the worker does: the task of each job in app/jobs.py, and the schedules. Times are in UTC."""

from app.jobs import PRUNE_JOBS, PruneJobs
from app.tasks import jobs
from plinth.jobs import Schedule

TASKS = (jobs.prune,)
SCHEDULES = (Schedule("prune_jobs", PRUNE_JOBS, PruneJobs(), cron="20 3 * * *"),)
