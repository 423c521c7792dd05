from fastapi import APIRouter

from app.dependencies import HealthServiceDep
from app.schemas.health import Liveness, Readiness
from plinth.http import FastRoute, ORJSONResponse
from plinth.security import PUBLIC

router = APIRouter(prefix="/health", tags=["health"], route_class=FastRoute, dependencies=[PUBLIC])


@router.get("/live")
async def live() -> Liveness:
    """Answer while the process runs. Restart it if this fails."""
    return Liveness()


@router.get(
    "/ready", response_model=Readiness, responses={503: {"model": Readiness, "description": "Send no traffic."}}
)
async def ready(health: HealthServiceDep) -> ORJSONResponse:
    """Answer 200 if traffic may be sent to this process, else 503."""
    readiness = await health.readiness()
    status = 200 if readiness.status in {"ready", "degraded"} else 503
    return ORJSONResponse(readiness.model_dump(), status)
