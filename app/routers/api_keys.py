from fastapi import APIRouter, status

from app.access import NO_STORE, RECORDED, WRITE_LIMIT, ApiKeyReaderDep, ApiKeyServiceDep, UserDep
from app.dependencies import IfMatchDep, PathId
from app.schemas.api_keys import ApiKeyCreate, ApiKeyCreated, ApiKeys
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/api-keys", tags=["api keys"], route_class=FastRoute)


@router.get("")
async def list_api_keys(user: UserDep, keys: ApiKeyReaderDep) -> ApiKeys:
    """List your API keys."""
    return await keys.all_of(user)


@router.post(
    "",
    dependencies=[WRITE_LIMIT, RECORDED, NO_STORE],
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(409),
)
async def create_api_key(data: ApiKeyCreate, user: UserDep, keys: ApiKeyServiceDep) -> ApiKeyCreated:
    """Create an API key, which a program sends as `Authorization: Bearer key_…`. It is shown only now."""
    return await keys.create(user, data)


@router.delete(
    "/{id:digits}",
    dependencies=[WRITE_LIMIT, RECORDED],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 412),
)
async def delete_api_key(id: PathId, user: UserDep, keys: ApiKeyServiceDep, if_match: IfMatchDep) -> None:
    """Delete one of your API keys. It is refused from now on."""
    await keys.delete(user, id, if_match)
