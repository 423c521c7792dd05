"""Everything that an endpoint may depend on. This list is the table of contents of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, TypedDict, cast

import httpx
from fastapi import Depends, Path, Request, Response
from fastapi.security import OAuth2PasswordBearer
from redis.asyncio import Redis

from app import scopes
from app.repositories.api_keys import ApiKeyQueries, ApiKeyRepository
from app.repositories.auth import AuthQueries, AuthRepository
from app.repositories.categories import CategoryQueries, CategoryRepository
from app.repositories.products import ProductQueries, ProductRepository
from app.repositories.reports import ReportQueries
from app.repositories.users import UserQueries, UserRepository
from app.schemas.types import Id
from app.services.access import AccessService
from app.services.accounts import AccountCreator, AccountMailService, AccountService
from app.services.api_keys import ApiKeyReader, ApiKeyService
from app.services.auth import Device, LoginService, RefreshService, SessionReader, TokenIssuer
from app.services.categories import CategoryReader, CategoryService
from app.services.health import HealthService
from app.services.jobs import JobReader
from app.services.products import FacetReader, ProductReader, ProductService
from app.services.reports import ReportReader, ReportService
from app.services.users import UserReader, UserService
from plinth.cache import Cache, Invalidate, Tag
from plinth.database import Database, Reads, Session, Versions
from plinth.errors import ForbiddenError, UnauthenticatedError
from plinth.http import Links, Validators, accepted_versions
from plinth.jobs import JobQueries, Jobs, Mailer
from plinth.resilience import Processes
from plinth.security import AuthSettings, Lockout, Passwords, Principal, Tokens, requires
from plinth.serving import is_draining


class State(TypedDict):
    """What the lifespan opens. Every request finds it in `request.state`."""

    database: Database
    redis: Redis | None
    cache: Cache
    outgoing: httpx.AsyncClient
    processes: Processes
    auth: AuthSettings
    tokens: Tokens
    passwords: Passwords
    public_url: str


class WorkerState(State):
    """What the lifespan of the worker opens. Every task finds it in `run.state`."""

    mailer: Mailer
    reports_to: str


def _state(request: Request) -> State:
    return cast(State, request.scope["state"])


async def get_reads(request: Request) -> Reads:
    return _state(request)["database"].reads


async def get_session(request: Request) -> AsyncIterator[Session]:
    async with _state(request)["database"].sessions.begin() as session:
        yield session


async def get_cache(request: Request) -> Cache:
    return _state(request)["cache"]


async def get_outgoing(request: Request) -> httpx.AsyncClient:
    return _state(request)["outgoing"]


async def get_processes(request: Request) -> Processes:
    return _state(request)["processes"]


async def get_tokens(request: Request) -> Tokens:
    return _state(request)["tokens"]


async def get_links(request: Request, response: Response) -> Links:
    return Links(request, response)


async def get_validators(request: Request) -> Validators:
    return Validators(request)


async def get_if_match(request: Request) -> Versions:
    return accepted_versions(request.scope, request.app.state.require_if_match)


PathId = Annotated[Id, Path()]
# Reads outside of a transaction, one round trip each.
ReadsDep = Annotated[Reads, Depends(get_reads)]
# The transaction of the request: returning commits, raising rolls back. Function scope makes that happen before the
# response is sent; with the default scope a failed commit would be answered with 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
CacheDep = Annotated[Cache, Depends(get_cache)]
# Calls to other servers.
OutgoingDep = Annotated[httpx.AsyncClient, Depends(get_outgoing)]
# CPU-bound work: `await processes.run(function, *args)`.
ProcessesDep = Annotated[Processes, Depends(get_processes)]
LinksDep = Annotated[Links, Depends(get_links)]
ValidatorsDep = Annotated[Validators, Depends(get_validators)]
# The versions that a change may be made to; None is any. The OpenAPI document shows it as the If-Match header.
IfMatchDep = Annotated[Versions, Depends(get_if_match)]


async def get_invalidate(session: SessionDep, cache: CacheDep) -> Invalidate:
    def invalidate(*tags: Tag) -> None:
        names = [tag.name for tag in tags]  # a tag that lacks a value raises here, before the commit
        session.after_commit(partial(cache.invalidate, *names))

    return invalidate


InvalidateDep = Annotated[Invalidate, Depends(get_invalidate)]


async def get_jobs(session: SessionDep) -> Jobs:
    return Jobs(session)


# Jobs are enqueued in the transaction of the request: they run if it commits.
JobsDep = Annotated[Jobs, Depends(get_jobs)]


# Who sends a request. The document shows the scheme, and Swagger's Authorize uses it.
BEARER = OAuth2PasswordBearer(tokenUrl="api/auth/token", scopes=scopes.DESCRIPTIONS, auto_error=False)


async def get_access(request: Request, reads: ReadsDep, cache: CacheDep) -> AccessService:
    state = _state(request)
    queries = AuthQueries(reads), UserQueries(reads), ApiKeyQueries(reads)
    return AccessService(state["tokens"], cache, *queries, trusted_scopes=state["auth"].trusted)


async def get_principal(
    credential: Annotated[str | None, Depends(BEARER)], access: Annotated[AccessService, Depends(get_access)]
) -> Principal:
    if credential is None:
        raise UnauthenticatedError
    return await access.principal(credential)


async def get_user(principal: Annotated[Principal, Depends(get_principal)]) -> Principal:
    """The principal, where it is a person who has signed in: a program must not take over the account."""
    if principal.kind != "user":
        raise ForbiddenError("This is only for users who have signed in with their password.")
    return principal


# Every route declares who may call it: PUBLIC, one of these in its `dependencies`, or an alias as a parameter.
MAY_WRITE = requires(get_principal, scopes.CONTENT_WRITE)
MAY_REQUEST_REPORTS = requires(get_principal, scopes.REPORTS)
MAY_ADMINISTRATE = requires(get_principal, scopes.USERS_ADMIN)
SIGNED_IN = requires(get_principal)
AdministratorDep = Annotated[Principal, MAY_ADMINISTRATE]
UserDep = Annotated[Principal, requires(get_user)]


async def no_store(response: Response) -> None:
    """The answer has secrets, which no cache may keep (RFC 6749 §5.1)."""
    response.headers["Cache-Control"] = "no-store"


async def get_device(request: Request) -> Device:
    address = request.client.host if request.client else ""
    return Device(address, "".join(filter(str.isprintable, request.headers.get("user-agent", "")))[:200])


NO_STORE = Depends(no_store)
DeviceDep = Annotated[Device, Depends(get_device)]


# For each resource a reader, so that a GET opens no transaction, and a service, which can do the same and change it.
async def get_login_service(
    request: Request, reads: ReadsDep, session: SessionDep, invalidate: InvalidateDep
) -> LoginService:
    state = _state(request)
    repositories = AuthRepository(session), UserRepository(session), UserQueries(reads)
    return LoginService(
        *repositories,
        passwords=state["passwords"],
        lockout=Lockout(state["database"].sessions),
        issuer=token_issuer(state),
        invalidate=invalidate,
    )


async def get_refresh_service(request: Request, cache: CacheDep) -> RefreshService:
    state = _state(request)

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
    state = _state(request)
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


async def get_category_reader(reads: ReadsDep) -> CategoryReader:
    return CategoryReader(CategoryQueries(reads))


async def get_category_service(session: SessionDep, invalidate: InvalidateDep) -> CategoryService:
    return CategoryService(CategoryRepository(session), invalidate)


async def get_product_reader(reads: ReadsDep) -> ProductReader:
    return ProductReader(ProductQueries(reads))


async def get_product_service(session: SessionDep, invalidate: InvalidateDep) -> ProductService:
    return ProductService(ProductRepository(session), invalidate)


async def get_facet_reader(reads: ReadsDep, cache: CacheDep) -> FacetReader:
    return FacetReader(ProductQueries(reads), cache)


async def get_report_reader(reads: ReadsDep, processes: ProcessesDep) -> ReportReader:
    return ReportReader(ReportQueries(reads), processes)


async def get_report_service(jobs: JobsDep) -> ReportService:
    return ReportService(jobs)


async def get_job_reader(reads: ReadsDep) -> JobReader:
    return JobReader(JobQueries(reads))


async def get_health_service(request: Request) -> HealthService:
    state = _state(request)
    return HealthService(state["database"], state["redis"], draining=is_draining())


TokensDep = Annotated[Tokens, Depends(get_tokens)]
LoginServiceDep = Annotated[LoginService, Depends(get_login_service)]
RefreshServiceDep = Annotated[RefreshService, Depends(get_refresh_service)]
SessionReaderDep = Annotated[SessionReader, Depends(get_session_reader)]
AccountServiceDep = Annotated[AccountService, Depends(get_account_service)]
UserReaderDep = Annotated[UserReader, Depends(get_user_reader)]
UserServiceDep = Annotated[UserService, Depends(get_user_service)]
ApiKeyReaderDep = Annotated[ApiKeyReader, Depends(get_api_key_reader)]
ApiKeyServiceDep = Annotated[ApiKeyService, Depends(get_api_key_service)]
CategoryReaderDep = Annotated[CategoryReader, Depends(get_category_reader)]
CategoryServiceDep = Annotated[CategoryService, Depends(get_category_service)]
ProductReaderDep = Annotated[ProductReader, Depends(get_product_reader)]
ProductServiceDep = Annotated[ProductService, Depends(get_product_service)]
FacetReaderDep = Annotated[FacetReader, Depends(get_facet_reader)]
ReportReaderDep = Annotated[ReportReader, Depends(get_report_reader)]
ReportServiceDep = Annotated[ReportService, Depends(get_report_service)]
JobReaderDep = Annotated[JobReader, Depends(get_job_reader)]
HealthServiceDep = Annotated[HealthService, Depends(get_health_service)]
