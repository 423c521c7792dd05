from collections.abc import AsyncIterator
from datetime import UTC, datetime
from math import ceil
from typing import Any

from app import tags
from app.jobs import IMPORT_PRODUCTS, ImportProducts
from app.models import Import
from app.repositories.imports import ImportQueries, ImportRepository
from app.schemas.imports import ImportQuery, ImportRead
from app.schemas.products import ProductCreate
from plinth.cache import Invalidate
from plinth.errors import InvalidItemsError, NotFoundError
from plinth.jobs import Jobs

DIRECT_ROWS = 10_000
BATCH = 5_000
MOST_ERRORS = 100
Rows = AsyncIterator[tuple[int, ProductCreate | None, list[dict[str, str]]]]
"""The number of each, what it is, and its errors."""
ERRORS = {
    "category": ("category_id", "This category_id refers to something that does not exist."),
    "repeated": ("sku", "This sku is in a row before."),
    "taken": ("sku", "This sku is already taken."),
}


class ImportReader:
    def __init__(self, imports: ImportQueries) -> None:
        self._imports = imports

    async def get(self, id: int) -> ImportRead:
        """Raises NotFoundError."""
        found = await self._imports.get(id)
        if found is None:
            raise NotFoundError("import", id)
        return ImportRead.model_validate(found, from_attributes=True)


class ImportService(ImportReader):
    """Loads rows into a table of their own, and makes products of them: at once, or by a job where there are many."""

    def __init__(self, imports: ImportRepository, invalidate: Invalidate, jobs: Jobs) -> None:
        super().__init__(imports)
        self._imports: ImportRepository = imports
        self._invalidate = invalidate
        self._jobs = jobs

    async def start(self, query: ImportQuery, rows: Rows) -> ImportRead:
        """Raises InvalidItemsError where a row has an error and none is to be skipped."""
        begun = await self._imports.add(
            mode=query.mode, skips_errors=query.errors == "skip", state="running", rows=0, done=0, failed=0, errors=[]
        )
        await self._imports.load(self._records(begun, rows))
        _raise_for_errors(begun)
        if begun.rows > DIRECT_ROWS:
            await self._jobs.enqueue(IMPORT_PRODUCTS, ImportProducts(id=begun.id))
            return ImportRead.model_validate(begun, from_attributes=True)
        await self._advance(begun, ceil(begun.rows / BATCH))
        _raise_for_errors(begun)
        return ImportRead.model_validate(begun, from_attributes=True)

    async def resume(self, id: int) -> int:
        """Make products of more rows, and return how many percent are done. Each row is taken once."""
        begun = await self._imports.find(id)
        if begun is None or begun.state != "running":
            return 100
        await self._advance(begun, 1 if begun.skips_errors else ceil(begun.rows / BATCH))
        return 100 if begun.state != "running" else 100 * (begun.done + begun.failed) // begun.rows

    async def _records(self, begun: Import, rows: Rows) -> AsyncIterator[tuple[Any, ...]]:
        async for line, data, errors in rows:
            begun.rows += 1
            if data is None:
                begun.failed += 1
                begun.errors = [*begun.errors, *errors][:MOST_ERRORS]
            else:
                values = data.model_dump()
                yield begun.id, line, *(values | {"price": int(values["price"] * 100)}).values()

    async def _advance(self, begun: Import, batches: int) -> None:
        done, errors = 0, list[dict[str, str]]()
        async with self._imports.savepoint() as savepoint:
            if begun.mode == "upsert":
                await self._imports.lock(begun.id, batches * BATCH)
            for _ in range(batches):
                for line, fault in await self._imports.merge(begun.id, inserts=begun.mode == "insert", size=BATCH):
                    if fault is None:
                        done += 1
                    else:
                        errors.append(_error(line, *ERRORS[fault]))
            if is_refused := bool(errors) and not begun.skips_errors:
                await savepoint.rollback()
        begun.failed += len(errors)
        begun.errors = [*begun.errors, *errors][:MOST_ERRORS]
        if is_refused:
            begun.state = "failed"
            await self._imports.discard(begun.id)
        else:
            begun.done += done
            begun.state = "running" if begun.done + begun.failed < begun.rows else "done"
        if begun.state != "running":
            begun.finished_at = datetime.now(UTC)
        self._invalidate(tags.PRODUCTS, tags.IMPORTS)


def _raise_for_errors(begun: Import) -> None:
    if begun.failed and not begun.skips_errors:
        raise InvalidItemsError(f"Nothing was stored: {begun.failed} rows have an error.", begun.errors)


def _error(line: int, field: str, detail: str) -> dict[str, str]:
    return {"location": "body", "pointer": f"#/{line}/{field}", "detail": detail}
