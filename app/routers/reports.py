from fastapi import APIRouter, status

from app.access import WRITE_LIMIT, ReporterDep
from app.dependencies import LinksDep, ReportReaderDep, ReportServiceDep
from app.schemas.jobs import JobStarted
from app.schemas.reports import PriceSummary
from plinth.http import FastRoute
from plinth.security import PUBLIC

router = APIRouter(prefix="/api/reports", tags=["reports"], route_class=FastRoute)


@router.get("/prices", dependencies=[PUBLIC])
async def get_prices(reports: ReportReaderDep) -> PriceSummary:
    """Summarize the prices of all products."""
    return await reports.prices()


@router.post("/prices", dependencies=[WRITE_LIMIT], status_code=status.HTTP_202_ACCEPTED)
async def request_prices(principal: ReporterDep, reports: ReportServiceDep, links: LinksDep) -> JobStarted:
    """Have this summary mailed; Location is the job, which shows how far it is."""
    job = JobStarted(id=await reports.request_prices(principal))
    links.location(f"/api/jobs/{job.id}")
    return job
