from typing import Annotated

from fastapi import APIRouter, Query, status

from app import tags
from app.access import IDEMPOTENT, MAY_WRITE, WRITE_LIMIT
from app.dependencies import CategoryReaderDep, CategoryServiceDep, IfMatchDep, LinksDep, PathId, ValidatorsDep
from app.schemas.base import Page
from app.schemas.categories import CategoryCreate, CategoryListQuery, CategoryRead, CategoryUpdate
from plinth.cache import cached_response
from plinth.http import FastRoute, problem_responses
from plinth.security import PUBLIC

router = APIRouter(prefix="/api/categories", tags=["categories"], route_class=FastRoute)

TTL = 60.0
MISSING_TTL = 5.0


@router.get("", dependencies=[PUBLIC])
@cached_response(ttl=TTL, tags=[tags.CATEGORIES])
async def list_categories(
    query: Annotated[CategoryListQuery, Query()], categories: CategoryReaderDep, links: LinksDep
) -> Page[CategoryRead]:
    """List categories, page by page."""
    page = await categories.page(query)
    links.page(page.next_cursor)
    return page


@router.get("/{id:digits}", dependencies=[PUBLIC], responses=problem_responses(404))
@cached_response(ttl=TTL, tags=[tags.CATEGORIES], missing_ttl=MISSING_TTL)
async def get_category(id: PathId, categories: CategoryReaderDep, validators: ValidatorsDep) -> CategoryRead:
    """Return a category."""
    category = await categories.get(id)
    validators.set(category.version, category.updated_at)
    return category


@router.post(
    "",
    dependencies=[MAY_WRITE, WRITE_LIMIT, IDEMPOTENT],
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(409),
)
async def create_category(
    data: CategoryCreate, categories: CategoryServiceDep, links: LinksDep, validators: ValidatorsDep
) -> CategoryRead:
    """Create a category."""
    category = await categories.create(data)
    links.created(category.id)
    validators.set(category.version, category.updated_at)
    return category


# No validators: a PUT is answered without them unless the representation is stored as it was sent (RFC 9110 §9.3.4).
@router.put("/{id:digits}", dependencies=[MAY_WRITE, WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def replace_category(
    id: PathId, data: CategoryCreate, categories: CategoryServiceDep, if_match: IfMatchDep
) -> CategoryRead:
    """Replace every field of a category; one that is left out takes its default."""
    return await categories.update(id, data, if_match)


@router.patch("/{id:digits}", dependencies=[MAY_WRITE, WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def update_category(
    id: PathId, data: CategoryUpdate, categories: CategoryServiceDep, if_match: IfMatchDep, validators: ValidatorsDep
) -> CategoryRead:
    """Change some fields of a category."""
    category = await categories.update(id, data, if_match)
    validators.set(category.version, category.updated_at)
    return category


@router.delete(
    "/{id:digits}",
    dependencies=[MAY_WRITE, WRITE_LIMIT],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 409, 412),
)
async def delete_category(id: PathId, categories: CategoryServiceDep, if_match: IfMatchDep) -> None:
    """Delete a category that nothing refers to."""
    await categories.delete(id, if_match)
