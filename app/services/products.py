from app.cache import Invalidate
from app.exceptions import InvalidError, NotFoundError
from app.repositories.products import ProductReads, ProductRepository, ProductRow
from app.schemas.base import Page
from app.schemas.products import (
    WORD,
    ProductCategory,
    ProductCreate,
    ProductListQuery,
    ProductRead,
    ProductSearchQuery,
    ProductSearchResult,
    ProductUpdate,
)


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

    async def get(self, id: int) -> ProductRead:
        """Raises NotFoundError."""
        return _found(id, await self._products.get(id))


class ProductService:
    """Changes products, inside the request's transaction."""

    def __init__(self, products: ProductRepository, invalidate: Invalidate) -> None:
        self._products = products
        self._invalidate = invalidate

    async def create(self, data: ProductCreate) -> ProductRead:
        """Raises ConflictError for a sku that is taken and a category that does not exist."""
        self._invalidate("products")
        return _read(await self._products.create(**data.model_dump()))

    async def update(self, id: int, data: ProductCreate | ProductUpdate) -> ProductRead:
        """Change what `data` holds. Raises NotFoundError, and ConflictError as `create` does."""
        self._invalidate("products", f"product:{id}")
        return _found(id, await self._products.update(id, **data.model_dump()))

    async def delete(self, id: int) -> None:
        """Raises NotFoundError."""
        self._invalidate("products", f"product:{id}")
        if not await self._products.delete(id):
            raise NotFoundError("product", id)


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


def _found(id: int, row: ProductRow | None) -> ProductRead:
    if row is None:
        raise NotFoundError("product", id)
    return _read(row)
