from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from app.access import MAY_WRITE, WRITE_LIMIT
from app.dependencies import ImportReaderDep, ImportServiceDep, LinksDep, PathId, RowsDep
from app.schemas.imports import ImportQuery, ImportRead
from app.schemas.products import ProductCreate
from plinth.http import FastRoute, problem_responses

router = APIRouter(tags=["imports"], route_class=FastRoute)

MOST_ROWS = 100_000
MOST_BYTES = 64 * 1024 * 1024
TEXTS = {kind: {"schema": {"type": "string"}} for kind in ("application/x-ndjson", "application/jsonl", "text/csv")}
ARRAY = {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/ProductCreate"}}}
BODY = {"required": True, "content": {"application/json": ARRAY, **TEXTS}}


@router.post(
    "/api/products/bulk",
    dependencies=[MAY_WRITE, WRITE_LIMIT],
    max_body_size=MOST_BYTES,
    responses={202: {"model": ImportRead}, **problem_responses(422)},
    openapi_extra={"requestBody": BODY},
)
async def import_products(
    query: Annotated[ImportQuery, Query()],
    rows: RowsDep,
    imports: ImportServiceDep,
    links: LinksDep,
    response: Response,
) -> ImportRead:
    """Create or replace up to 100,000 products; above 10,000 it is begun, and Location shows how far it is."""
    begun = await imports.start(query, rows.read(ProductCreate, MOST_ROWS))
    links.location(f"/api/imports/{begun.id}")
    response.status_code = status.HTTP_202_ACCEPTED if begun.state == "running" else status.HTTP_200_OK
    return begun


@router.get("/api/imports/{id:digits}", dependencies=[MAY_WRITE], responses=problem_responses(404))
async def get_import(id: PathId, imports: ImportReaderDep) -> ImportRead:
    """Return how far an import is."""
    return await imports.get(id)
