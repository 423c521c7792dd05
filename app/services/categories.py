from app import tags
from app.repositories.categories import PAGES, CategoryQueries, CategoryRepository, CategoryRow
from app.schemas.base import Page
from app.schemas.categories import CategoryCreate, CategoryListQuery, CategoryRead, CategoryUpdate
from plinth.cache import Invalidate
from plinth.database import Versions, check_version
from plinth.errors import NotFoundError

PAGES.check(CategoryListQuery)


class CategoryReader:
    def __init__(self, categories: CategoryQueries) -> None:
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


class CategoryService(CategoryReader):
    """Changes categories in the transaction of the request."""

    def __init__(self, categories: CategoryRepository, invalidate: Invalidate) -> None:
        super().__init__(categories)
        self._categories: CategoryRepository = categories
        self._invalidate = invalidate

    async def create(self, data: CategoryCreate) -> CategoryRead:
        """Raises ConflictError for a name that is taken."""
        id = await self._categories.add(**data.model_dump())
        self._invalidate(tags.CATEGORIES)
        return await self.get(id)

    async def update(self, id: int, data: CategoryCreate | CategoryUpdate, versions: Versions = None) -> CategoryRead:
        """Raises NotFoundError, ChangedError for another version, and what `create` raises."""
        category = await self._categories.find(id)
        if category is None:
            raise NotFoundError("category", id)
        check_version(category, versions)
        category.update(data.changes())
        await self._categories.flush()
        self._invalidate(tags.CATEGORIES)
        return await self.get(id)

    async def delete(self, id: int, versions: Versions = None) -> None:
        """Raises NotFoundError, ChangedError for another version, and ConflictError while something refers to it."""
        category = await self._categories.find(id)
        if category is None:
            raise NotFoundError("category", id)
        check_version(category, versions)
        await self._categories.delete(category)
        self._invalidate(tags.CATEGORIES)


def _read(row: CategoryRow) -> CategoryRead:
    return CategoryRead(**row._asdict())
