from app import tags
from app.models import User
from app.repositories.auth import AuthRepository
from app.repositories.users import PAGES, UserQueries, UserRepository, UserRow
from app.schemas.base import Page
from app.schemas.users import UserAdministration, UserListQuery, UserRead, UserUpdate
from plinth.cache import Invalidate
from plinth.database import Versions, check_version
from plinth.errors import ConflictError, NotFoundError
from plinth.security import Principal

PAGES.check(UserListQuery)


class UserReader:
    def __init__(self, users: UserQueries) -> None:
        self._users = users

    async def page(self, query: UserListQuery) -> Page[UserRead]:
        page = await self._users.page(**query.model_dump())
        return Page[UserRead](items=[_read(row) for row in page.rows], next_cursor=page.next_cursor, total=page.total)

    async def get(self, id: int) -> UserRead:
        """Raises NotFoundError."""
        row = await self._users.get(id)
        if row is None:
            raise NotFoundError("user", id)
        return _read(row)


class UserService(UserReader):
    """Changes accounts in the transaction of the request."""

    def __init__(self, users: UserRepository, auth: AuthRepository, invalidate: Invalidate) -> None:
        super().__init__(users)
        self._users: UserRepository = users
        self._auth = auth
        self._invalidate = invalidate

    async def update(self, id: int, data: UserUpdate, versions: Versions = None) -> UserRead:
        """Change one's own account. Raises NotFoundError, and ChangedError for another version."""
        user = await self._find(id, versions)
        user.update(data.changes())
        await self._users.flush()
        return await self.get(id)

    async def administrate(
        self, principal: Principal, id: int, data: UserAdministration, versions: Versions = None
    ) -> UserRead:
        """Change another account, at once in all its sessions. Raises what `update` raises, and ConflictError."""
        if principal.kind != "issuer" and principal.id == str(id):
            raise ConflictError("Your own role and state can only be changed by another administrator.")
        user = await self._find(id, versions)
        user.update(data.changes())
        await self._users.flush()
        if not user.is_active:
            await self._auth.delete_logins(id)
        self._invalidate(tags.USER(id))
        return await self.get(id)

    async def delete(self, id: int, versions: Versions = None) -> None:
        """Delete an account with all that belongs to it. Raises what `update` raises."""
        await self._users.delete(await self._find(id, versions))
        self._invalidate(tags.USER(id))

    async def _find(self, id: int, versions: Versions) -> User:
        user = await self._users.find(id)
        if user is None:
            raise NotFoundError("user", id)
        check_version(user, versions)
        return user


def _read(row: UserRow) -> UserRead:
    return UserRead(**row._asdict())
