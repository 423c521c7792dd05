from app.cache import Invalidate
from app.exceptions import NotFoundError
from app.repositories.categories import CategoryReads, CategoryRepository, CategoryRow
from app.schemas.base import Page
from app.schemas.categories import CategoryCreate, CategoryListQuery, CategoryRead, CategoryUpdate


class CategoryReadService:
    def __init__(self, categories: CategoryReads) -> None:
        self._categories = categories

    async def page(self, query: CategoryListQuery) -> Page[CategoryRead]:
        page = await self._categories.page(**query.model_dump())
        return Page[CategoryRead](
            items=[_read(row) for row in page.rows], next_cursor=page.next_cursor, total=page.total
        )

    async def get(self, id: int) -> CategoryRead:
        """Raises NotFoundError."""
        return _found(id, await self._categories.get(id))


class CategoryService:
    """Changes categories, inside the request's transaction."""

    def __init__(self, categories: CategoryRepository, invalidate: Invalidate) -> None:
        self._categories = categories
        self._invalidate = invalidate

    async def create(self, data: CategoryCreate) -> CategoryRead:
        """Raises ConflictError for a name that is taken."""
        self._invalidate("categories")
        return _read(await self._categories.create(**data.model_dump()))

    async def update(self, id: int, data: CategoryCreate | CategoryUpdate) -> CategoryRead:
        """Change what `data` holds. Raises NotFoundError, and ConflictError for a name that is taken."""
        self._invalidate("categories")
        return _found(id, await self._categories.update(id, **data.model_dump()))

    async def delete(self, id: int) -> None:
        """Raises NotFoundError, and ConflictError while products are in the category."""
        self._invalidate("categories")
        if not await self._categories.delete(id):
            raise NotFoundError("category", id)


def _read(row: CategoryRow) -> CategoryRead:
    return CategoryRead(**row._asdict())


def _found(id: int, row: CategoryRow | None) -> CategoryRead:
    if row is None:
        raise NotFoundError("category", id)
    return _read(row)
