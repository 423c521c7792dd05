"""What the worker does: the task of each job in app/jobs.py, and the schedules. Times are in UTC."""

from typing import Any

from app.dependencies import WorkerState
from app.jobs import LOW_STOCK_REPORT, PRUNE_ACCOUNTS, PRUNE_JOBS, LowStockReport, PruneAccounts, PruneJobs
from app.tasks import imports, jobs, orders, reports, users
from plinth.jobs import Schedule, Task

TASKS: list[Task[WorkerState, Any]] = [
    jobs.prune,
    users.prune,
    users.mail_account,
    imports.import_products,
    orders.mail_order,
    reports.mail_prices,
    reports.mail_low_stock,
]
SCHEDULES: list[Schedule[Any]] = [
    Schedule("prune_jobs", PRUNE_JOBS, PruneJobs(), cron="20 3 * * *"),
    Schedule("prune_accounts", PRUNE_ACCOUNTS, PruneAccounts(), cron="40 3 * * *"),
    Schedule("low_stock_report", LOW_STOCK_REPORT, LowStockReport(), cron="0 7 * * 1-5"),
]
