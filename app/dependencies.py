"""Everything that an endpoint may depend on. This list is the table of contents of the service."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, TypedDict, cast

import httpx
from fastapi import Depends, Path, Request, Response
from redis.asyncio import Redis

from app.repositories.categories import CategoryQueries, CategoryRepository
from app.repositories.dashboard import DashboardQueries
from app.repositories.images import ImageQueries, ImageRepository
from app.repositories.imports import ImportQueries, ImportRepository
from app.repositories.orders import OrderQueries, OrderRepository
from app.repositories.products import ProductExports, ProductQueries, ProductRepository
from app.repositories.reports import ReportQueries
from app.schemas.types import Id
from app.services.categories import CategoryReader, CategoryService
from app.services.dashboard import DashboardReader
from app.services.health import HealthService
from app.services.images import ImageReader, ImageService
from app.services.imports import ImportReader, ImportService
from app.services.jobs import JobReader
from app.services.orders import OrderReader, OrderService, OrderWatcher
from app.services.products import FacetReader, ProductExporter, ProductReader, ProductService
from app.services.reports import ReportReader, ReportService
from plinth.cache import Cache, Invalidate, Tag
from plinth.database import Database, Export, Reads, Session, Versions
from plinth.http import Links, Rows, Validators, accepted_versions
from plinth.jobs import JobQueries, Jobs, Mailer
from plinth.resilience import Processes
from plinth.security import AuthSettings, Limits, Passwords, Tokens
from plinth.serving import is_draining
from plinth.storage import Files, Storage


class State(TypedDict):
    """What the lifespan opens. Every request finds it in `request.state`."""

    database: Database
    redis: Redis | None
    cache: Cache
    outgoing: httpx.AsyncClient
    storage: Storage
    processes: Processes
    limits: Limits
    auth: AuthSettings
    tokens: Tokens
    passwords: Passwords
    public_url: str


class WorkerState(State):
    """What the lifespan of the worker opens. Every task finds it in `run.state`."""

    mailer: Mailer
    reports_to: str


def state_of(request: Request) -> State:
    return cast(State, request.scope["state"])


async def get_reads(request: Request) -> Reads:
    return state_of(request)["database"].reads


async def get_session(request: Request) -> AsyncIterator[Session]:
    async with state_of(request)["database"].sessions.begin() as session:
        yield session


async def get_export(request: Request) -> AsyncIterator[Export]:
    async with state_of(request)["database"].exports.begin() as export:
        yield export


async def get_cache(request: Request) -> Cache:
    return state_of(request)["cache"]


async def get_outgoing(request: Request) -> httpx.AsyncClient:
    return state_of(request)["outgoing"]


async def get_storage(request: Request) -> Storage:
    return state_of(request)["storage"]


async def get_processes(request: Request) -> Processes:
    return state_of(request)["processes"]


async def get_links(request: Request, response: Response) -> Links:
    return Links(request, response)


async def get_validators(request: Request) -> Validators:
    return Validators(request)


async def get_if_match(request: Request) -> Versions:
    return accepted_versions(request.scope, request.app.state.require_if_match)


async def get_rows(request: Request) -> AsyncIterator[Rows]:
    async with Rows.received(request) as rows:
        yield rows


PathId = Annotated[Id, Path()]
# Reads outside of a transaction, one round trip each.
ReadsDep = Annotated[Reads, Depends(get_reads)]
# The transaction of the request: returning commits, raising rolls back. Function scope makes that happen before the
# response is sent; with the default scope a failed commit would be answered with 201.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]
# One COPY of any length, past the pools. Its connection is closed after the response, or when the client leaves.
ExportDep = Annotated[Export, Depends(get_export)]
CacheDep = Annotated[Cache, Depends(get_cache)]
# Calls to other servers.
OutgoingDep = Annotated[httpx.AsyncClient, Depends(get_outgoing)]
# Files that clients upload.
StorageDep = Annotated[Storage, Depends(get_storage)]
# CPU-bound work: `await processes.run(function, *args)`.
ProcessesDep = Annotated[Processes, Depends(get_processes)]
LinksDep = Annotated[Links, Depends(get_links)]
ValidatorsDep = Annotated[Validators, Depends(get_validators)]
# The rows of the body, which has been received by then.
RowsDep = Annotated[Rows, Depends(get_rows, scope="function")]
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


# For each resource a reader, so that a GET opens no transaction, and a service, which can do the same and change it.
async def get_category_reader(reads: ReadsDep) -> CategoryReader:
    return CategoryReader(CategoryQueries(reads))


async def get_category_service(session: SessionDep, invalidate: InvalidateDep) -> CategoryService:
    return CategoryService(CategoryRepository(session), invalidate)


async def get_image_reader(reads: ReadsDep, storage: StorageDep) -> ImageReader:
    return ImageReader(ImageQueries(reads), storage)


async def get_image_service(reads: ReadsDep, session: SessionDep, storage: StorageDep) -> ImageService:
    return ImageService(ImageQueries(reads), ImageRepository(session), Files(storage, session))


async def get_product_reader(reads: ReadsDep) -> ProductReader:
    return ProductReader(ProductQueries(reads))


async def get_product_service(session: SessionDep, invalidate: InvalidateDep) -> ProductService:
    return ProductService(ProductRepository(session), invalidate)


async def get_product_exporter(export: ExportDep) -> ProductExporter:
    return ProductExporter(ProductExports(export))


async def get_facet_reader(reads: ReadsDep, cache: CacheDep) -> FacetReader:
    return FacetReader(ProductQueries(reads), cache)


async def get_import_reader(reads: ReadsDep) -> ImportReader:
    return ImportReader(ImportQueries(reads))


async def get_import_service(session: SessionDep, invalidate: InvalidateDep, jobs: JobsDep) -> ImportService:
    return ImportService(ImportRepository(session), invalidate, jobs)


async def get_order_reader(reads: ReadsDep) -> OrderReader:
    return OrderReader(OrderQueries(reads))


async def get_dashboard_reader(reads: ReadsDep, cache: CacheDep) -> DashboardReader:
    return DashboardReader(DashboardQueries(reads), cache)


async def get_order_watcher(request: Request, reads: ReadsDep) -> OrderWatcher:
    return OrderWatcher(OrderQueries(reads), state_of(request)["database"].notifications)


async def get_order_service(session: SessionDep, jobs: JobsDep, invalidate: InvalidateDep) -> OrderService:
    return OrderService(OrderRepository(session), jobs, invalidate)


async def get_report_reader(reads: ReadsDep, processes: ProcessesDep) -> ReportReader:
    return ReportReader(ReportQueries(reads), processes)


async def get_report_service(jobs: JobsDep) -> ReportService:
    return ReportService(jobs)


async def get_job_reader(reads: ReadsDep) -> JobReader:
    return JobReader(JobQueries(reads))


async def get_health_service(request: Request) -> HealthService:
    state = state_of(request)
    return HealthService(state["database"], state["redis"], draining=is_draining())


CategoryReaderDep = Annotated[CategoryReader, Depends(get_category_reader)]
CategoryServiceDep = Annotated[CategoryService, Depends(get_category_service)]
ImageReaderDep = Annotated[ImageReader, Depends(get_image_reader)]
ImageServiceDep = Annotated[ImageService, Depends(get_image_service)]
ProductReaderDep = Annotated[ProductReader, Depends(get_product_reader)]
ProductServiceDep = Annotated[ProductService, Depends(get_product_service)]
ProductExporterDep = Annotated[ProductExporter, Depends(get_product_exporter)]
FacetReaderDep = Annotated[FacetReader, Depends(get_facet_reader)]
ImportReaderDep = Annotated[ImportReader, Depends(get_import_reader)]
ImportServiceDep = Annotated[ImportService, Depends(get_import_service)]
DashboardReaderDep = Annotated[DashboardReader, Depends(get_dashboard_reader)]
OrderReaderDep = Annotated[OrderReader, Depends(get_order_reader)]
OrderWatcherDep = Annotated[OrderWatcher, Depends(get_order_watcher)]
OrderServiceDep = Annotated[OrderService, Depends(get_order_service)]
ReportReaderDep = Annotated[ReportReader, Depends(get_report_reader)]
ReportServiceDep = Annotated[ReportService, Depends(get_report_service)]
JobReaderDep = Annotated[JobReader, Depends(get_job_reader)]
HealthServiceDep = Annotated[HealthService, Depends(get_health_service)]
