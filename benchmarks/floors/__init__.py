"""The ground that the app stands on: the same answers from the same tables, with nothing between.

`bare` is floor A (a ping) and floor B (asyncpg and orjson), `typed` is floor C (FastAPI, one typed route each, no
middleware). They answer on the app's paths, byte for byte what the app answers.
"""

import os
from base64 import urlsafe_b64encode

import asyncpg
import orjson

_COLUMNS = """p.id, p.sku, p.name, p.description, p.price, p.stock,
    c.id AS category_id, c.name AS category_name, p.version, p.created_at, p.updated_at"""
_PRODUCTS = f"SELECT {_COLUMNS} FROM products p JOIN categories c ON c.id = p.category_id"
_WRITTEN = f"SELECT {_COLUMNS} FROM written p JOIN categories c ON c.id = p.category_id"

BY_ID = f"{_PRODUCTS} WHERE p.id = $1"
FIRST_PAGE = f"{_PRODUCTS} ORDER BY p.id LIMIT $1"
SEARCH = f"""{_PRODUCTS} WHERE p.search @@ to_tsquery('english', $1)
    ORDER BY ts_rank(p.search, to_tsquery('english', $1)) DESC, p.id LIMIT $2"""
CREATE = f"""WITH written AS (
    INSERT INTO products (sku, name, description, price, stock, category_id)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING *
) {_WRITTEN}"""
UPDATE = f"""WITH written AS (
    UPDATE products SET stock = $2, version = version + 1, updated_at = now() WHERE id = $1 RETURNING *
) {_WRITTEN}"""


async def open_pool(size: int) -> asyncpg.Pool:
    """Without the query that asyncpg sends when a connection comes back."""
    return await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=size, max_size=size, reset=_nothing, server_settings={"jit": "off"}
    )


async def _nothing(connection: asyncpg.Connection) -> None:
    pass


def words_of(q: str) -> str:
    return " & ".join(f"'{word}'" for word in q.split()) + ":*"


def cursor_after(id: int) -> str:
    return urlsafe_b64encode(orjson.dumps(("products", "id", id, id))).rstrip(b"=").decode()
