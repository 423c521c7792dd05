from fastapi import APIRouter, Response

from app.dependencies import HealthServiceDep
from app.schemas.health import Liveness, Readiness
from plinth.http import FastRoute

router = APIRouter(prefix="/health", tags=["health"], route_class=FastRoute)


@router.get("/live")
async def live() -> Liveness:
    """Tell that the process answers; restart it if this fails."""
    return Liveness()


@router.get("/ready", responses={503: {"model": Readiness, "description": "Send no traffic."}})
async def ready(health: HealthServiceDep, response: Response) -> Readiness:
    """Tell whether to send traffic here."""
    readiness = await health.readiness()
    response.status_code = 200 if readiness.status in {"ready", "degraded"} else 503
    return readiness
