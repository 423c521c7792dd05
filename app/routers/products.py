from typing import Annotated, Any

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse

from app import tags
from app.access import IDEMPOTENT, MAY_EXPORT, MAY_WRITE, WRITE_LIMIT
from app.dependencies import (
    FacetReaderDep,
    IfMatchDep,
    LinksDep,
    PathId,
    ProductExporterDep,
    ProductReaderDep,
    ProductServiceDep,
    ValidatorsDep,
)
from app.schemas.base import Page
from app.schemas.products import (
    ProductCreate,
    ProductExportQuery,
    ProductFacets,
    ProductListQuery,
    ProductRead,
    ProductSearchQuery,
    ProductSearchResult,
    ProductUpdate,
)
from plinth.cache import cached_response
from plinth.http import FastRoute, problem_responses
from plinth.security import PUBLIC

router = APIRouter(prefix="/api/products", tags=["products"], route_class=FastRoute)

TTL = 60.0
MISSING_TTL = 5.0
MEDIA_TYPES = {"ndjson": "application/x-ndjson", "json": "application/json", "csv": "text/csv"}
ARRAY = {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/ProductRead"}}}
TEXT = {"schema": {"type": "string"}}
EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": ARRAY, "application/x-ndjson": TEXT, "text/csv": TEXT}}
}


@router.get("", dependencies=[PUBLIC])
@cached_response(ttl=TTL, tags=[tags.PRODUCTS, tags.CATEGORIES])
async def list_products(
    query: Annotated[ProductListQuery, Query()], products: ProductReaderDep, links: LinksDep
) -> Page[ProductRead]:
    """List products, page by page."""
    page = await products.page(query)
    links.page(page.next_cursor)
    return page


@router.get("/search", dependencies=[PUBLIC])
@cached_response(ttl=TTL, tags=[tags.PRODUCTS, tags.CATEGORIES])
async def search_products(
    query: Annotated[ProductSearchQuery, Query()], products: ProductReaderDep
) -> ProductSearchResult:
    """Find products by the words in their name, sku and description, best match first."""
    return await products.search(query)


@router.get("/facets", dependencies=[PUBLIC])
async def get_product_facets(facets: FacetReaderDep) -> ProductFacets:
    """Count products and compare prices by category."""
    return await facets.get()


@router.get("/export", dependencies=[MAY_EXPORT], response_class=StreamingResponse, responses=EXPORTED)
async def export_products(
    query: Annotated[ProductExportQuery, Query()], products: ProductExporterDep
) -> StreamingResponse:
    """Download all products that match, as they were at one instant."""
    rows = await products.start(query)
    headers = {"Content-Disposition": f'attachment; filename="products.{query.format}"'}
    return StreamingResponse(rows, media_type=MEDIA_TYPES[query.format], headers=headers)


@router.get("/{id:digits}", dependencies=[PUBLIC], responses=problem_responses(404))
@cached_response(ttl=TTL, tags=[tags.PRODUCT, tags.IMPORTS, tags.CATEGORIES], missing_ttl=MISSING_TTL)
async def get_product(id: PathId, products: ProductReaderDep, validators: ValidatorsDep) -> ProductRead:
    """Return a product."""
    product = await products.get(id)
    validators.set(product.version, product.last_modified_at)
    return product


@router.post(
    "",
    dependencies=[MAY_WRITE, WRITE_LIMIT, IDEMPOTENT],
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(409),
)
async def create_product(
    data: ProductCreate, products: ProductServiceDep, links: LinksDep, validators: ValidatorsDep
) -> ProductRead:
    """Create a product."""
    product = await products.create(data)
    links.created(product.id)
    validators.set(product.version, product.last_modified_at)
    return product


# No validators: a PUT is answered without them unless the representation is stored as it was sent (RFC 9110 §9.3.4).
@router.put("/{id:digits}", dependencies=[MAY_WRITE, WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def replace_product(
    id: PathId, data: ProductCreate, products: ProductServiceDep, if_match: IfMatchDep
) -> ProductRead:
    """Replace every field of a product; one that is left out takes its default."""
    return await products.update(id, data, if_match)


@router.patch("/{id:digits}", dependencies=[MAY_WRITE, WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def update_product(
    id: PathId, data: ProductUpdate, products: ProductServiceDep, if_match: IfMatchDep, validators: ValidatorsDep
) -> ProductRead:
    """Change some fields of a product."""
    product = await products.update(id, data, if_match)
    validators.set(product.version, product.last_modified_at)
    return product


@router.delete(
    "/{id:digits}",
    dependencies=[MAY_WRITE, WRITE_LIMIT],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 409, 412),
)
async def delete_product(id: PathId, products: ProductServiceDep, if_match: IfMatchDep) -> None:
    """Delete a product."""
    await products.delete(id, if_match)
