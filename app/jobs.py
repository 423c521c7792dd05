"""Which jobs there are: each is declared once, with its payload. Services enqueue them, and app/tasks does them.

A name and the fields of a payload are stored: while jobs of an older version may be waiting, only add fields that have
a default.
"""

from typing import Literal

from pydantic import BaseModel

from plinth.jobs import Job


class PruneJobs(BaseModel):
    finished_days: int = 7
    dead_days: int = 90
    keys_hours: int = 24
    audit_days: int = 365


class PruneAccounts(BaseModel):
    refresh_token_days: int = 30


class AccountMail(BaseModel):
    """Never the secret of a link: the task makes it, so that it is stored nowhere but in the mail."""

    user_id: int
    """0 where there is no account: then the job does nothing, which no client can see."""
    purpose: Literal["verify", "registered", "reset", "changed"]


class ImportProducts(BaseModel):
    id: int


class OrderMail(BaseModel):
    order_id: int


class PriceReport(BaseModel):
    pass


class LowStockReport(BaseModel):
    below: int = 5


PRUNE_JOBS = Job("prune_jobs", PruneJobs)
PRUNE_ACCOUNTS = Job("prune_accounts", PruneAccounts)
ACCOUNT_MAIL = Job("account_mail", AccountMail)
IMPORT_PRODUCTS = Job("import_products", ImportProducts)
ORDER_MAIL = Job("order_mail", OrderMail)
PRICE_REPORT = Job("price_report", PriceReport)
LOW_STOCK_REPORT = Job("low_stock_report", LowStockReport)
