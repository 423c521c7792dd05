"""Who may call what, and what the endpoints of accounts may depend on beside app/dependencies.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.security import OAuth2PasswordBearer

from app import scopes
from app.dependencies import CacheDep, InvalidateDep, JobsDep, ReadsDep, SessionDep, State, get_session, state_of
from app.repositories.api_keys import ApiKeyQueries, ApiKeyRepository
from app.repositories.auth import AuthQueries, AuthRepository
from app.repositories.users import UserQueries, UserRepository
from app.services.access import AccessService
from app.services.accounts import AccountCreator, AccountMailService, AccountService
from app.services.api_keys import ApiKeyReader, ApiKeyService
from app.services.audit import AuditReader
from app.services.auth import Device, LoginService, RefreshService, SessionReader, TokenIssuer
from app.services.users import UserReader, UserService
from plinth.database import Session
from plinth.errors import ForbiddenError, UnauthenticatedError
from plinth.security import (
    AuditQueries,
    Lockout,
    Passwords,
    Principal,
    Tokens,
    idempotent,
    limited,
    requires,
    set_actor,
)

# Who sends a request. The document shows the scheme, and Swagger's Authorize uses it.
BEARER = OAuth2PasswordBearer(tokenUrl="api/auth/token", scopes=scopes.DESCRIPTIONS, auto_error=False)


async def get_access(request: Request, reads: ReadsDep, cache: CacheDep) -> AccessService:
    state = state_of(request)
    queries = AuthQueries(reads), UserQueries(reads), ApiKeyQueries(reads)
    return AccessService(state["tokens"], cache, *queries, trusted_scopes=state["auth"].trusted)


async def get_principal(
    request: Request,
    credential: Annotated[str | None, Depends(BEARER)],
    access: Annotated[AccessService, Depends(get_access)],
) -> Principal:
    # Of two headers a proxy may have checked the other one.
    if credential is None or len(request.headers.getlist("Authorization")) > 1:
        raise UnauthenticatedError
    return await access.principal(credential)


async def get_user(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """The principal, where it is a person who has signed in: a program must not take over the account."""
    if principal.kind != "user":
        raise ForbiddenError("This is only for users who have signed in with their password.")
    return principal


# Every route declares who may call it: PUBLIC, one of these in its `dependencies`, or an alias as a parameter.
MAY_EXPORT = requires(get_principal)
MAY_WRITE = requires(get_principal, scopes.CONTENT_WRITE)
MAY_REQUEST_REPORTS = requires(get_principal, scopes.REPORTS)
MAY_ADMINISTRATE = requires(get_principal, scopes.USERS_ADMIN)
MAY_READ_AUDIT = requires(get_principal, scopes.AUDIT_READ)
PrincipalDep = Annotated[Principal, MAY_EXPORT]
ReporterDep = Annotated[Principal, MAY_REQUEST_REPORTS]
AdministratorDep = Annotated[Principal, MAY_ADMINISTRATE]
UserDep = Annotated[Principal, requires(get_user)]


async def record_actor(session: SessionDep, principal: Annotated[Principal, Depends(get_principal)]) -> None:
    await set_actor(session, principal.name)


async def get_principal_name(principal: Annotated[Principal, Depends(get_principal)]) -> str:
    return principal.name


# The changes of the request are the principal's, in the audit trail: for routes that write to audited tables.
RECORDED = Depends(record_actor)
# How many requests are accepted, as LIMIT_WRITES says of each principal, and LIMIT_AUTH of each address.
WRITE_LIMIT = limited("writes", key=get_principal_name)
AUTH_LIMIT = limited("auth")
# The request may be sent again with the same Idempotency-Key, and is carried out once: `dependencies=[IDEMPOTENT]`.
IDEMPOTENT = idempotent(get_session, get_principal_name)


async def no_store(response: Response) -> None:
    """The answer has secrets, which no cache may keep (RFC 6749 §5.1)."""
    response.headers["Cache-Control"] = "no-store"


async def get_device(request: Request) -> Device:
    address = request.client.host if request.client else ""
    return Device(address, "".join(filter(str.isprintable, request.headers.get("user-agent", "")))[:200])


NO_STORE = Depends(no_store)
DeviceDep = Annotated[Device, Depends(get_device)]


async def get_tokens(request: Request) -> Tokens:
    return state_of(request)["tokens"]


async def get_login_service(
    request: Request, reads: ReadsDep, session: SessionDep, invalidate: InvalidateDep
) -> LoginService:
    state = state_of(request)
    repositories = AuthRepository(session), UserRepository(session), UserQueries(reads)
    return LoginService(
        *repositories,
        passwords=state["passwords"],
        lockout=Lockout(state["database"].sessions),
        issuer=token_issuer(state),
        invalidate=invalidate,
    )


async def get_refresh_service(request: Request, cache: CacheDep) -> RefreshService:
    state = state_of(request)

    @asynccontextmanager
    async def transaction() -> AsyncIterator[AuthRepository]:
        async with state["database"].sessions.begin() as session:
            yield AuthRepository(session)

    return RefreshService(transaction, token_issuer(state), cache)


def token_issuer(state: State) -> TokenIssuer:
    return TokenIssuer(state["tokens"], state["auth"].refresh_seconds)


async def get_session_reader(reads: ReadsDep) -> SessionReader:
    return SessionReader(AuthQueries(reads))


async def get_account_service(
    request: Request, reads: ReadsDep, session: SessionDep, jobs: JobsDep, invalidate: InvalidateDep
) -> AccountService:
    state = state_of(request)
    repositories = UserRepository(session), AuthRepository(session), UserQueries(reads), AuthQueries(reads)
    return AccountService(
        *repositories,
        passwords=state["passwords"],
        lockout=Lockout(state["database"].sessions),
        jobs=jobs,
        invalidate=invalidate,
    )


async def get_account_creator(session: Session, passwords: Passwords) -> AccountCreator:
    return AccountCreator(UserRepository(session), passwords)


async def get_account_mail_service(session: SessionDep) -> AccountMailService:
    return AccountMailService(UserQueries(session), AuthRepository(session))


async def get_user_reader(reads: ReadsDep) -> UserReader:
    return UserReader(UserQueries(reads))


async def get_user_service(session: SessionDep, invalidate: InvalidateDep) -> UserService:
    return UserService(UserRepository(session), AuthRepository(session), invalidate)


async def get_api_key_reader(reads: ReadsDep) -> ApiKeyReader:
    return ApiKeyReader(ApiKeyQueries(reads))


async def get_api_key_service(session: SessionDep, invalidate: InvalidateDep) -> ApiKeyService:
    return ApiKeyService(ApiKeyRepository(session), UserRepository(session), invalidate)


async def get_audit_reader(reads: ReadsDep) -> AuditReader:
    return AuditReader(AuditQueries(reads))


TokensDep = Annotated[Tokens, Depends(get_tokens)]
LoginServiceDep = Annotated[LoginService, Depends(get_login_service)]
RefreshServiceDep = Annotated[RefreshService, Depends(get_refresh_service)]
SessionReaderDep = Annotated[SessionReader, Depends(get_session_reader)]
AccountServiceDep = Annotated[AccountService, Depends(get_account_service)]
UserReaderDep = Annotated[UserReader, Depends(get_user_reader)]
UserServiceDep = Annotated[UserService, Depends(get_user_service)]
ApiKeyReaderDep = Annotated[ApiKeyReader, Depends(get_api_key_reader)]
ApiKeyServiceDep = Annotated[ApiKeyService, Depends(get_api_key_service)]
AuditReaderDep = Annotated[AuditReader, Depends(get_audit_reader)]
