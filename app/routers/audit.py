from typing import Annotated

from fastapi import APIRouter, Query

from app.access import MAY_READ_AUDIT, AuditReaderDep
from app.dependencies import LinksDep
from app.schemas.audit import AuditListQuery, AuditRead
from app.schemas.base import Page
from plinth.http import FastRoute

router = APIRouter(prefix="/api/audit", tags=["audit"], route_class=FastRoute)


@router.get("", dependencies=[MAY_READ_AUDIT])
async def list_changes(
    query: Annotated[AuditListQuery, Query()], audit: AuditReaderDep, links: LinksDep
) -> Page[AuditRead]:
    """List who changed what, page by page, the latest first."""
    page = await audit.page(query)
    links.page(page.next_cursor)
    return page
