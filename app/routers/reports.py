from fastapi import APIRouter, status

from app.dependencies import WRITE_LIMIT, LinksDep, ReportReaderDep, ReportServiceDep
from app.schemas.jobs import JobStarted
from app.schemas.reports import PriceSummary
from plinth.http import FastRoute

router = APIRouter(prefix="/api/reports", tags=["reports"], route_class=FastRoute)


@router.get("/prices")
async def get_prices(reports: ReportReaderDep) -> PriceSummary:
    """Summarize the prices of all products."""
    return await reports.prices()


@router.post("/prices", status_code=status.HTTP_202_ACCEPTED, dependencies=[WRITE_LIMIT])
async def request_prices(reports: ReportServiceDep, links: LinksDep) -> JobStarted:
    """Have this summary mailed; Location is the job, which shows how far it is."""
    job = JobStarted(id=await reports.request_prices())
    links.location(f"/api/jobs/{job.id}")
    return job
