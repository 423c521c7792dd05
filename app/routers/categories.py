from typing import Annotated

from fastapi import APIRouter, Query, status

from app.cache import cached_response
from app.dependencies import CategoryReadServiceDep, CategoryServiceDep, LinksDep, PathId
from app.http import problem_responses
from app.schemas.base import Page
from app.schemas.categories import CategoryCreate, CategoryListQuery, CategoryRead, CategoryUpdate

router = APIRouter(prefix="/api/categories", tags=["categories"])

TTL = 60.0


@router.get("")
@cached_response(ttl=TTL, tags=["categories"])
async def list_categories(
    query: Annotated[CategoryListQuery, Query()], categories: CategoryReadServiceDep, links: LinksDep
) -> Page[CategoryRead]:
    """List categories, page by page."""
    return links.page(await categories.page(query))


@router.get("/{id:digits}", responses=problem_responses(404))
@cached_response(ttl=TTL, tags=["categories"])
async def get_category(id: PathId, categories: CategoryReadServiceDep) -> CategoryRead:
    """Return a category."""
    return await categories.get(id)


@router.post("", status_code=status.HTTP_201_CREATED, responses=problem_responses(409))
async def create_category(data: CategoryCreate, categories: CategoryServiceDep, links: LinksDep) -> CategoryRead:
    """Create a category."""
    return links.created(await categories.create(data))


@router.put("/{id:digits}", responses=problem_responses(404, 409))
async def replace_category(id: PathId, data: CategoryCreate, categories: CategoryServiceDep) -> CategoryRead:
    """Replace every field of a category; one left out takes its default."""
    return await categories.update(id, data)


@router.patch("/{id:digits}", responses=problem_responses(404, 409))
async def update_category(id: PathId, data: CategoryUpdate, categories: CategoryServiceDep) -> CategoryRead:
    """Change some fields of a category."""
    return await categories.update(id, data)


@router.delete("/{id:digits}", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(404, 409))
async def delete_category(id: PathId, categories: CategoryServiceDep) -> None:
    """Delete a category that no product is in."""
    await categories.delete(id)
