"""Floors: minimal servers that give the same responses as the app from the same tables, byte for byte.

`bare` is floor A (a ping) and floor B (asyncpg and orjson); `typed` is floor C (FastAPI with one typed route each and
no middleware). They share no code with plinth, so that a change there does not move them: only the sizes of their pools
come from its settings.
"""

import os
from base64 import urlsafe_b64encode
from html import escape

import asyncpg
import orjson

_COLUMNS = """p.id, p.sku, p.name, p.description, p.price, p.stock,
    c.id AS category_id, c.name AS category_name, p.version, p.created_at, p.updated_at"""
_PRODUCTS = f"SELECT {_COLUMNS} FROM products p JOIN categories c ON c.id = p.category_id"
_WRITTEN = f"SELECT {_COLUMNS} FROM written p JOIN categories c ON c.id = p.category_id"

BY_ID = f"{_PRODUCTS} WHERE p.id = $1"
FIRST_PAGE = f"{_PRODUCTS} ORDER BY p.id LIMIT $1"
_PASSAGE = """ts_headline('english', p.name || ' · ' || p.description, to_tsquery('english', $1),
    E'StartSel=\\x02, StopSel=\\x03, MaxWords=40') AS passage"""
SEARCH = f"""SELECT {_COLUMNS}, {_PASSAGE} FROM products p JOIN categories c ON c.id = p.category_id
    WHERE p.search @@ to_tsquery('english', $1)
    ORDER BY ts_rank(p.search, to_tsquery('english', $1)) DESC, p.id LIMIT $2"""
CREATE = f"""WITH written AS (
    INSERT INTO products (sku, name, description, price, stock, category_id)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
) {_WRITTEN}"""
UPDATE = f"""WITH written AS (
    UPDATE products SET stock = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *
) {_WRITTEN}"""


async def open_pool(size: int) -> asyncpg.Pool:
    """A pool without the query that asyncpg sends by default when a connection is released: a second round trip."""
    return await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=size, max_size=size, reset=_no_reset, server_settings={"jit": "off"}
    )


async def _no_reset(connection: asyncpg.Connection) -> None:
    pass


def tsquery(q: str) -> str:
    return " & ".join(f"'{word}'" for word in q.split()) + ":*"


def marked(passage: str) -> str:
    return escape(passage).replace("\x02", "<mark>").replace("\x03", "</mark>")


def cursor_after(id: int) -> str:
    return urlsafe_b64encode(b"\x01" + orjson.dumps(("products", "id", id, id))).rstrip(b"=").decode()
