from collections.abc import Collection

from app import tags
from app.repositories.categories import CategoryReads, CategoryRepository, CategoryRow
from app.schemas.base import Page
from app.schemas.categories import CategoryCreate, CategoryListQuery, CategoryRead, CategoryUpdate
from plinth.cache import Invalidate
from plinth.errors import AppError, ChangedError, NotFoundError


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
        row = await self._categories.get(id)
        if row is None:
            raise NotFoundError("category", id)
        return _read(row)


class CategoryService:
    """Changes categories, inside the request's transaction."""

    def __init__(self, categories: CategoryRepository, invalidate: Invalidate) -> None:
        self._categories = categories
        self._invalidate = invalidate

    async def create(self, data: CategoryCreate) -> CategoryRead:
        """Raises ConflictError for a name that is taken."""
        self._invalidate(tags.CATEGORIES)
        return _read(await self._categories.create(**data.model_dump()))

    async def update(
        self, id: int, data: CategoryCreate | CategoryUpdate, versions: Collection[int] | None = None
    ) -> CategoryRead:
        """Change what `data` holds, if it is one of `versions`; None is any.

        Raises NotFoundError, ChangedError for another version, and ConflictError for a name that is taken.
        """
        self._invalidate(tags.CATEGORIES)
        row = await self._categories.update(id, versions, **data.model_dump())
        if row is None:
            raise await self._missed(id, versions)
        return _read(row)

    async def delete(self, id: int, versions: Collection[int] | None = None) -> None:
        """Raises as `update` does, and ConflictError while products are in the category."""
        self._invalidate(tags.CATEGORIES)
        if not await self._categories.delete(id, versions):
            raise await self._missed(id, versions)

    async def _missed(self, id: int, versions: Collection[int] | None) -> AppError:
        """Why there was nothing to change."""
        if versions is not None and await self._categories.exists(id):
            return ChangedError("category", id)
        return NotFoundError("category", id)


def _read(row: CategoryRow) -> CategoryRead:
    return CategoryRead(**row._asdict())
