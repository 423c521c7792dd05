from collections.abc import Collection

from app import tags
from app.repositories.products import ProductReads, ProductRepository, ProductRow
from app.schemas.base import Page
from app.schemas.products import (
    WORD,
    ProductCategory,
    ProductCreate,
    ProductDetail,
    ProductListQuery,
    ProductRead,
    ProductSearchQuery,
    ProductSearchResult,
    ProductUpdate,
)
from plinth.cache import Invalidate
from plinth.errors import AppError, ChangedError, InvalidError, NotFoundError


class ProductReadService:
    def __init__(self, products: ProductReads) -> None:
        self._products = products

    async def page(self, query: ProductListQuery) -> Page[ProductRead]:
        page = await self._products.page(**query.model_dump())
        return Page[ProductRead](
            items=[_read(row) for row in page.rows], next_cursor=page.next_cursor, total=page.total
        )

    async def search(self, query: ProductSearchQuery) -> ProductSearchResult:
        """Raises InvalidError when there is no word to search for."""
        words = [word for word in query.q.split() if WORD.search(word)]
        if not words:
            raise InvalidError("q", "There is no word to search for; send at least one letter or digit.")
        rows = await self._products.search(words, query.limit)
        return ProductSearchResult(items=[_read(row) for row in rows])

    async def get(self, id: int) -> ProductDetail:
        """Raises NotFoundError."""
        row = await self._products.get(id)
        if row is None:
            raise NotFoundError("product", id)
        return _detail(row)


class ProductService:
    """Changes products, inside the request's transaction."""

    def __init__(self, products: ProductRepository, invalidate: Invalidate) -> None:
        self._products = products
        self._invalidate = invalidate

    async def create(self, data: ProductCreate) -> ProductDetail:
        """Raises ConflictError for a sku that is taken and a category that does not exist."""
        row = await self._products.create(**data.model_dump())
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(row.id))  # its absence may be cached
        return _detail(row)

    async def update(
        self, id: int, data: ProductCreate | ProductUpdate, versions: Collection[int] | None = None
    ) -> ProductDetail:
        """Change what `data` holds, if it is one of `versions`; None is any.

        Raises NotFoundError, ChangedError for another version, and ConflictError as `create` does.
        """
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(id))
        row = await self._products.update(id, versions, **data.model_dump())
        if row is None:
            raise await self._missed(id, versions)
        return _detail(row)

    async def delete(self, id: int, versions: Collection[int] | None = None) -> None:
        """Raises NotFoundError, and ChangedError if it is none of `versions`."""
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(id))
        if not await self._products.delete(id, versions):
            raise await self._missed(id, versions)

    async def _missed(self, id: int, versions: Collection[int] | None) -> AppError:
        """Why there was nothing to change."""
        if versions is not None and await self._products.exists(id):
            return ChangedError("product", id)
        return NotFoundError("product", id)


def _read(row: ProductRow) -> ProductRead:
    return ProductRead(
        id=row.id,
        sku=row.sku,
        name=row.name,
        description=row.description,
        price=row.price,
        stock=row.stock,
        category=ProductCategory(id=row.category_id, name=row.category_name),
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _detail(row: ProductRow) -> ProductDetail:
    last_modified_at = max(row.updated_at, row.category_updated_at or row.updated_at)
    return ProductDetail(**_read(row).__dict__, last_modified_at=last_modified_at)
