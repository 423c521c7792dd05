"""Floor C: FastAPI with one typed route each over asyncpg, without middleware."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
from fastapi import FastAPI, Query, Request
from pydantic import BaseModel

from benchmarks.floors import BY_ID, FIRST_PAGE, SEARCH, cursor_after, marked, open_pool, tsquery
from plinth.database import DatabaseSettings

Limit = Annotated[int, Query(ge=1, le=100)]


# Not the schemas of the app: a change there must not move the floor.
class Category(BaseModel):
    id: int
    name: str


class Product(BaseModel):
    id: int
    sku: str
    name: str
    description: str
    price: Decimal
    stock: int
    category: Category
    version: int
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    items: list[Product]
    next_cursor: str | None
    total: int | None


class Hit(Product):
    passage: str


class SearchResult(BaseModel):
    items: list[Hit]


class Liveness(BaseModel):
    status: str = "alive"


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with await open_pool(DatabaseSettings().read_pool_size) as pool:
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)


@app.get("/health/live")
async def live() -> Liveness:
    return Liveness()


@app.get("/api/products")
async def first_page(request: Request, limit: Limit = 20) -> Page:
    rows = await request.state.pool.fetch(FIRST_PAGE, limit + 1)
    more = cursor_after(rows[limit - 1]["id"]) if len(rows) > limit else None
    return Page(items=[_product(row) for row in rows[:limit]], next_cursor=more, total=None)


@app.get("/api/products/search")
async def search(request: Request, q: str, limit: Limit = 20) -> SearchResult:
    rows = await request.state.pool.fetch(SEARCH, tsquery(q), limit)
    return SearchResult(items=[Hit(**_product(row).__dict__, passage=marked(row["passage"])) for row in rows])


@app.get("/api/products/{id}")
async def by_id(request: Request, id: int) -> Product:
    return _product(await request.state.pool.fetchrow(BY_ID, id))


def _product(row: asyncpg.Record) -> Product:
    return Product(
        id=row["id"],
        sku=row["sku"],
        name=row["name"],
        description=row["description"],
        price=Decimal(row["price"]).scaleb(-2),
        stock=row["stock"],
        category=Category(id=row["category_id"], name=row["category_name"]),
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
