from app.schemas.audit import AuditListQuery, AuditRead
from app.schemas.base import Page
from plinth.security import AuditQueries

AuditQueries.pages.check(AuditListQuery)


class AuditReader:
    def __init__(self, entries: AuditQueries) -> None:
        self._entries = entries

    async def page(self, query: AuditListQuery) -> Page[AuditRead]:
        page = await self._entries.page(**query.model_dump())
        items = [AuditRead.model_validate(row, from_attributes=True) for row in page.rows]
        return Page[AuditRead](items=items, next_cursor=page.next_cursor, total=page.total)
