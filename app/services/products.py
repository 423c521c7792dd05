from collections.abc import AsyncIterator
from html import escape

from app import tags
from app.repositories.products import END, PAGES, START, ProductExports, ProductQueries, ProductRepository, ProductRow
from app.schemas.base import Page
from app.schemas.products import (
    WORD,
    CategoryFacet,
    ProductCategory,
    ProductCreate,
    ProductDetail,
    ProductExportQuery,
    ProductFacets,
    ProductHit,
    ProductListQuery,
    ProductRead,
    ProductSearchQuery,
    ProductSearchResult,
    ProductUpdate,
)
from plinth.cache import Cache, Invalidate
from plinth.database import Versions, check_version
from plinth.errors import InvalidError, NotFoundError

PAGES.check(ProductListQuery)
FACETS_TTL = 60.0


class ProductReader:
    def __init__(self, products: ProductQueries) -> None:
        self._products = products

    async def page(self, query: ProductListQuery) -> Page[ProductRead]:
        page = await self._products.page(**query.model_dump())
        return Page[ProductRead](
            items=[_read(row) for row in page.rows], next_cursor=page.next_cursor, total=page.total
        )

    async def search(self, query: ProductSearchQuery) -> ProductSearchResult:
        """Raises InvalidError where there is no word to search for."""
        words = [word for word in query.q.split() if WORD.search(word)]
        if not words:
            raise InvalidError("q", "There is no word to search for. Send at least one letter or digit.")
        rows = await self._products.search(words, query.limit)
        return ProductSearchResult(items=[_hit(row) for row in rows])

    async def get(self, id: int) -> ProductDetail:
        """Raises NotFoundError."""
        row = await self._products.get(id)
        if row is None:
            raise NotFoundError("product", id)
        return _detail(row)


class ProductExporter:
    def __init__(self, products: ProductExports) -> None:
        self._products = products

    async def start(self, query: ProductExportQuery) -> AsyncIterator[bytes]:
        return await self._products.start(**query.model_dump())


class FacetReader:
    """Not part of `ProductService`: in a transaction it would cache counts that are not committed."""

    def __init__(self, products: ProductQueries, cache: Cache) -> None:
        self._products = products
        self._cache = cache

    async def get(self) -> ProductFacets:
        """Counted once for all requests, and again when a product or a category changes."""
        return await self._cache.remember(
            "facets", FACETS_TTL, self._count, schema=ProductFacets, tags=(tags.PRODUCTS, tags.CATEGORIES)
        )

    async def _count(self) -> ProductFacets:
        rows = await self._products.facets()
        return ProductFacets(categories=[CategoryFacet(**row._asdict()) for row in rows])


class ProductService(ProductReader):
    """Changes products in the transaction of the request."""

    def __init__(self, products: ProductRepository, invalidate: Invalidate) -> None:
        super().__init__(products)
        self._products: ProductRepository = products
        self._invalidate = invalidate

    async def create(self, data: ProductCreate) -> ProductDetail:
        """Raises ConflictError for a sku that is taken, and InvalidError for a category that does not exist."""
        id = await self._products.add(**data.model_dump())
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(id))  # the 404 of this id may be cached
        return await self.get(id)

    async def update(self, id: int, data: ProductCreate | ProductUpdate, versions: Versions = None) -> ProductDetail:
        """Raises NotFoundError, ChangedError for another version, and what `create` raises."""
        product = await self._products.find(id)
        if product is None:
            raise NotFoundError("product", id)
        check_version(product, versions)
        product.update(data.changes())
        await self._products.flush()
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(id))
        return await self.get(id)

    async def delete(self, id: int, versions: Versions = None) -> None:
        """Raises NotFoundError, ChangedError for another version, and ConflictError while something refers to it."""
        product = await self._products.find(id)
        if product is None:
            raise NotFoundError("product", id)
        check_version(product, versions)
        await self._products.delete(product)
        self._invalidate(tags.PRODUCTS, tags.PRODUCT(id))


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


def _hit(row: ProductRow) -> ProductHit:
    passage = escape(row.passage).replace(START, "<mark>").replace(END, "</mark>")
    return ProductHit(**_read(row).__dict__, passage=passage)


def _detail(row: ProductRow) -> ProductDetail:
    last_modified_at = max(row.updated_at, row.category_updated_at or row.updated_at)
    return ProductDetail(**_read(row).__dict__, last_modified_at=last_modified_at)
