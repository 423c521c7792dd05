"""Floors A and B: ASGI without a framework, asyncpg without an ORM, orjson without schemas."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import asyncpg
import orjson
from starlette.types import Receive, Scope, Send

from benchmarks.floors import BY_ID, CREATE, FIRST_PAGE, SEARCH, UPDATE, cursor_after, marked, open_pool, tsquery
from plinth.database import DatabaseSettings


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    status, content = await _respond(scope, receive)
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    sizes = DatabaseSettings()  # the defaults of the app
    async with await open_pool(sizes.read_pool_size) as pool, await open_pool(sizes.pool_size) as changes:
        scope["state"] |= {"pool": pool, "changes": changes}
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _respond(scope: Scope, receive: Receive) -> tuple[int, Any]:
    method, path = scope["method"], scope["path"]
    if path == "/health/live":
        return 200, {"status": "alive"}
    pool: asyncpg.Pool = scope["state"]["pool"]
    changes: asyncpg.Pool = scope["state"]["changes"]
    if method == "POST":
        return 201, _product(await _create(changes, await _body(receive)))
    if method == "PATCH":
        return 200, _product(await _update(changes, int(path[14:]), await _body(receive)))
    if path == "/api/products":
        return 200, _page(await pool.fetch(FIRST_PAGE, 21))
    if path == "/api/products/search":
        query = dict(parse_qsl(scope["query_string"].decode()))
        rows = await pool.fetch(SEARCH, tsquery(query["q"]), 20)
        return 200, {"items": [{**_product(row[:-1]), "passage": marked(row["passage"])} for row in rows]}
    return 200, _product(await pool.fetchrow(BY_ID, int(path[14:])))


async def _create(pool: asyncpg.Pool, data: dict[str, Any]) -> asyncpg.Record:
    price = int(data["price"].replace(".", ""))
    async with pool.acquire() as connection, connection.transaction():
        return await connection.fetchrow(
            CREATE, data["sku"], data["name"], data["description"], price, data["stock"], data["category_id"]
        )


async def _update(pool: asyncpg.Pool, id: int, data: dict[str, Any]) -> asyncpg.Record:
    async with pool.acquire() as connection, connection.transaction():
        return await connection.fetchrow(UPDATE, id, data["stock"])


async def _body(receive: Receive) -> dict[str, Any]:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    return dict(orjson.loads(body))


def _page(rows: list[asyncpg.Record]) -> dict[str, Any]:
    more = cursor_after(rows[19]["id"]) if len(rows) > 20 else None
    return {"items": [_product(row) for row in rows[:20]], "next_cursor": more, "total": None}


def _product(row: Sequence[Any]) -> dict[str, Any]:
    id, sku, name, description, price, stock, category_id, category_name, version, created_at, updated_at = row
    return {
        "id": id,
        "sku": sku,
        "name": name,
        "description": description,
        "price": f"{price // 100}.{price % 100:02}",
        "stock": stock,
        "category": {"id": category_id, "name": category_name},
        "version": version,
        "created_at": created_at,
        "updated_at": updated_at,
    }
