"""Everything an endpoint may ask for. This list is the table of contents of the service."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, TypedDict, cast

from fastapi import Depends, Path, Request, Response
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from app.repositories.categories import CategoryReads, CategoryRepository
from app.repositories.products import ProductReads, ProductRepository
from app.schemas.types import Id
from app.services.categories import CategoryReadService, CategoryService
from app.services.health import HealthService
from app.services.products import ProductReadService, ProductService
from plinth.cache import Cache, Invalidate
from plinth.database import Database, Reads, Transaction
from plinth.http import Links, Validators, accepted_versions
from plinth.serving import is_draining


class State(TypedDict):
    """What the lifespan opens, and every request finds on `request.state`."""

    database: Database
    redis: Redis | None
    cache: Cache


def _state(request: Request) -> State:
    return cast(State, request.scope["state"])


async def get_reads(request: Request) -> Reads:
    return _state(request)["database"].reads


async def get_transaction(request: Request) -> AsyncIterator[Transaction]:
    async with _state(request)["database"].transaction() as transaction:
        yield transaction


async def get_cache(request: Request) -> Cache:
    return _state(request)["cache"]


async def get_links(request: Request, response: Response) -> Links:
    return Links(request, response)


async def get_validators(request: Request) -> Validators:
    return Validators(request)


async def get_if_match(request: Request) -> frozenset[int] | None:
    return accepted_versions(request.scope, request.app.state.require_if_match)


PathId = Annotated[Id, Path()]
ReadsDep = Annotated[Reads, Depends(get_reads)]
# With FastAPI's default scope the commit would follow the response, and a failed one would answer 201.
TransactionDep = Annotated[Transaction, Depends(get_transaction, scope="function")]
CacheDep = Annotated[Cache, Depends(get_cache)]
LinksDep = Annotated[Links, Depends(get_links)]
ValidatorsDep = Annotated[Validators, Depends(get_validators)]
# The versions that a change may meet; None is any. A route that asks for it documents 412.
IfMatchDep = Annotated[frozenset[int] | None, Depends(get_if_match)]


async def get_session(transaction: TransactionDep) -> AsyncSession:
    """SQLAlchemy's ORM, in the same transaction."""
    return transaction.session


async def get_invalidate(transaction: TransactionDep, cache: CacheDep) -> Invalidate:
    def invalidate(*names: str) -> None:
        transaction.after_commit(partial(cache.invalidate, *names))

    return invalidate


SessionDep = Annotated[AsyncSession, Depends(get_session)]
InvalidateDep = Annotated[Invalidate, Depends(get_invalidate)]


# Reads have services of their own, so that a GET never opens a transaction.
async def get_category_reads(reads: ReadsDep) -> CategoryReadService:
    return CategoryReadService(CategoryReads(reads))


async def get_categories(transaction: TransactionDep, invalidate: InvalidateDep) -> CategoryService:
    return CategoryService(CategoryRepository(transaction), invalidate)


async def get_product_reads(reads: ReadsDep) -> ProductReadService:
    return ProductReadService(ProductReads(reads))


async def get_products(transaction: TransactionDep, invalidate: InvalidateDep) -> ProductService:
    return ProductService(ProductRepository(transaction), invalidate)


async def get_health(request: Request) -> HealthService:
    return HealthService(_state(request)["database"], _state(request)["redis"], draining=is_draining())


CategoryReadServiceDep = Annotated[CategoryReadService, Depends(get_category_reads)]
CategoryServiceDep = Annotated[CategoryService, Depends(get_categories)]
ProductReadServiceDep = Annotated[ProductReadService, Depends(get_product_reads)]
ProductServiceDep = Annotated[ProductService, Depends(get_products)]
HealthServiceDep = Annotated[HealthService, Depends(get_health)]
