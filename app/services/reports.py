from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from app.jobs import PRICE_REPORT, PriceReport
from app.repositories.reports import ReportQueries, StockRow
from app.schemas.reports import PriceSummary
from plinth.jobs import Jobs
from plinth.resilience import Processes
from plinth.security import Principal, hash_secret


class ReportReader:
    def __init__(self, reports: ReportQueries, processes: Processes) -> None:
        self._reports = reports
        self._processes = processes

    async def prices(self) -> PriceSummary:
        """Calculated in another process, because it would hold up all other requests in this one."""
        rows = await self._reports.prices()
        return await self._processes.run(summarize, [(row.price, row.products) for row in rows])

    async def low_stock(self, below: int) -> list[StockRow]:
        return await self._reports.low_stock(below)


class ReportService:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def request_prices(self, principal: Principal) -> UUID:
        """Have the summary mailed. While one is being made for a user, no other is begun."""
        owner = principal.owner
        key = f"prices:{hash_secret(owner).hex()}"  # for each, since the job is shown to no one else
        return await self._jobs.enqueue(PRICE_REPORT, PriceReport(), key=key, requested_by=owner)


def summarize(prices: Sequence[tuple[Decimal, int]]) -> PriceSummary:
    """Of prices in ascending order, with how many products have each."""
    each = [price for price, products in prices for _ in range(products)]
    if not each:
        return PriceSummary(products=0, cheapest=None, median=None, dearest=None)
    return PriceSummary(products=len(each), cheapest=each[0], median=each[(len(each) - 1) // 2], dearest=each[-1])
