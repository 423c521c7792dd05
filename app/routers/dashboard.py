from fastapi import APIRouter

from app.access import UserDep
from app.dependencies import DashboardReaderDep
from app.schemas.dashboard import Dashboard
from plinth.http import FastRoute

router = APIRouter(prefix="/api/dashboard", tags=["orders"], route_class=FastRoute)


@router.get("")
async def get_dashboard(user: UserDep, dashboard: DashboardReaderDep) -> Dashboard:
    """Return your orders at a glance, and what is new."""
    return await dashboard.get(user)
