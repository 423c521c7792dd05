"""Which jobs there are: each is declared once, with its payload. Services enqueue them, and app/tasks does them.

A name and the fields of a payload are stored: while jobs of an older version may be waiting, only add fields that have
a default.
"""

from pydantic import BaseModel

from plinth.jobs import Job


class PruneJobs(BaseModel):
    finished_days: int = 7
    dead_days: int = 90
    keys_hours: int = 24
    audit_days: int = 365


class PriceReport(BaseModel):
    pass


class LowStockReport(BaseModel):
    below: int = 5


PRUNE_JOBS = Job("prune_jobs", PruneJobs)
PRICE_REPORT = Job("price_report", PriceReport)
LOW_STOCK_REPORT = Job("low_stock_report", LowStockReport)
