from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, status

from app.access import (
    MAY_ADMINISTRATE,
    RECORDED,
    WRITE_LIMIT,
    AdministratorDep,
    LoginServiceDep,
    SessionReaderDep,
    UserDep,
    UserReaderDep,
    UserServiceDep,
)
from app.dependencies import IfMatchDep, LinksDep, PathId, ValidatorsDep
from app.schemas.base import Page
from app.schemas.users import Sessions, UserAdministration, UserListQuery, UserRead, UserUpdate
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/users", tags=["users"], route_class=FastRoute)


@router.get("/me")
async def get_me(user: UserDep, users: UserReaderDep, validators: ValidatorsDep) -> UserRead:
    """Return your account."""
    me = await users.get(int(user.id))
    validators.set(me.version, me.updated_at)
    return me


@router.patch("/me", dependencies=[WRITE_LIMIT, RECORDED], responses=problem_responses(412))
async def update_me(
    data: UserUpdate, user: UserDep, users: UserServiceDep, if_match: IfMatchDep, validators: ValidatorsDep
) -> UserRead:
    """Change your account."""
    me = await users.update(int(user.id), data, if_match)
    validators.set(me.version, me.updated_at)
    return me


@router.delete(
    "/me",
    dependencies=[WRITE_LIMIT, RECORDED],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(412),
)
async def delete_me(user: UserDep, users: UserServiceDep, if_match: IfMatchDep) -> None:
    """Delete your account, its sessions and its API keys."""
    await users.delete(int(user.id), if_match)


@router.get("/me/sessions")
async def list_my_sessions(user: UserDep, sessions: SessionReaderDep) -> Sessions:
    """List your sessions, that which was used last first; at most 100."""
    return await sessions.all_of(user)


@router.delete(
    "/me/sessions/{id}",
    dependencies=[WRITE_LIMIT],
    status_code=status.HTTP_204_NO_CONTENT,
    responses=problem_responses(404, 412),
)
async def revoke_my_session(id: UUID, user: UserDep, logins: LoginServiceDep, if_match: IfMatchDep) -> None:
    """End one of your sessions."""
    await logins.revoke(user, id, if_match)


@router.get("", dependencies=[MAY_ADMINISTRATE])
async def list_users(query: Annotated[UserListQuery, Query()], users: UserReaderDep, links: LinksDep) -> Page[UserRead]:
    """List accounts, page by page."""
    page = await users.page(query)
    links.page(page.next_cursor)
    return page


@router.get("/{id:digits}", dependencies=[MAY_ADMINISTRATE], responses=problem_responses(404))
async def get_user(id: PathId, users: UserReaderDep, validators: ValidatorsDep) -> UserRead:
    """Return an account."""
    user = await users.get(id)
    validators.set(user.version, user.updated_at)
    return user


@router.patch("/{id:digits}", dependencies=[WRITE_LIMIT, RECORDED], responses=problem_responses(404, 409, 412))
async def administrate_user(
    *,
    id: PathId,
    data: UserAdministration,
    administrator: AdministratorDep,
    users: UserServiceDep,
    if_match: IfMatchDep,
    validators: ValidatorsDep,
) -> UserRead:
    """Change the role of another account, or close it. This takes effect at once."""
    user = await users.administrate(administrator, id, data, if_match)
    validators.set(user.version, user.updated_at)
    return user
