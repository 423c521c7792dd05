from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import asyncpg
from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSessionTransaction

from app.models import Import, ImportRow
from plinth.database import Query, Readable, Session


class ImportState(NamedTuple):
    id: int
    mode: str
    state: str
    rows: int
    done: int
    failed: int
    errors: list[dict[str, Any]]
    created_at: datetime
    finished_at: datetime | None


BY_ID = Query(
    ImportState,
    select(*(getattr(Import, name) for name in ImportState._fields)).where(Import.id == bindparam("id")),
)
COLUMNS = [column.name for column in ImportRow.__table__.columns]
LOAD_SECONDS = 300
# The next rows in the order of their skus. All rows of one sku are in the same batch, where they are compared.
BATCH = """
    import_id = :id AND coalesce(sku <= (
        SELECT sku FROM product_import_rows WHERE import_id = :id ORDER BY sku OFFSET :size - 1 LIMIT 1
    ), true)
"""
# By id, as orders lock products: two transactions that lock in different orders deadlock.
LOCK = text(f"""
    SELECT count(*) FROM (
        SELECT id FROM products WHERE sku IN (SELECT sku FROM product_import_rows WHERE {BATCH})
        ORDER BY id FOR NO KEY UPDATE
    ) AS locked
""")  # noqa: S608 - constants
MERGE = f"""
    WITH batch AS (
        DELETE FROM product_import_rows WHERE {BATCH} RETURNING *
    ), known AS MATERIALIZED (
        -- Locked, so that none is deleted before the commit.
        SELECT id FROM categories WHERE id IN (SELECT category_id FROM batch) ORDER BY id FOR KEY SHARE
    ), checked AS MATERIALIZED (
        SELECT *, CASE
            WHEN category_id NOT IN (SELECT id FROM known) THEN 'category'
            WHEN line > min(line) OVER (PARTITION BY sku) THEN 'repeated'
        END AS fault FROM batch
    ), merged AS (
        INSERT INTO products (sku, name, description, price, stock, category_id)
        SELECT sku, name, description, price, stock, category_id FROM checked WHERE fault IS NULL
        ORDER BY sku  -- two imports that add the same skus wait for each other, and do not deadlock
        ON CONFLICT (sku) %s RETURNING sku
    )
    SELECT line, CASE WHEN fault IS NULL AND :inserts AND sku NOT IN (SELECT sku FROM merged) THEN 'taken'
        ELSE fault END AS fault FROM checked ORDER BY line
"""  # noqa: S608 - constants
# As an update of one product: the version of what does not change remains.
REPLACE = """
    DO UPDATE SET name = excluded.name, description = excluded.description, price = excluded.price,
        stock = excluded.stock, category_id = excluded.category_id,
        version = products.version + 1, updated_at = now()
    WHERE (products.name, products.description, products.price, products.stock, products.category_id)
        IS DISTINCT FROM (excluded.name, excluded.description, excluded.price, excluded.stock, excluded.category_id)
"""
INSERT, UPSERT = text(MERGE % "DO NOTHING"), text(MERGE % REPLACE)


class ImportQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> ImportState | None:
        return await self.db.first(BY_ID, id=id)


class ImportRepository(ImportQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def add(self, **values: Any) -> Import:
        added = Import(**values)
        self.session.add(added)
        await self.session.flush()
        return added

    async def find(self, id: int) -> Import | None:
        """The entity, locked until the end of the transaction."""
        return await self.session.get(Import, id, with_for_update=True)

    async def load(self, records: AsyncIterator[tuple[Any, ...]]) -> None:
        """By COPY, for which the driver takes prices in minor units. It takes longer than statements usually may."""
        await self.session.execute(text(f"SET LOCAL statement_timeout = '{LOAD_SECONDS}s'"))
        pooled = await (await self.session.connection()).get_raw_connection()
        await cast(asyncpg.Connection, pooled.driver_connection).copy_records_to_table(
            ImportRow.__tablename__, columns=COLUMNS, records=records, timeout=LOAD_SECONDS
        )

    def savepoint(self) -> AsyncSessionTransaction:
        return self.session.begin_nested()

    async def lock(self, id: int, size: int) -> None:
        """Lock the products of the next rows until the end of the transaction."""
        await self.session.execute(LOCK, {"id": id, "size": size})

    async def merge(self, id: int, *, inserts: bool, size: int) -> Sequence[tuple[int, str | None]]:
        """Make products of the next rows. Returns the line of each, and why it was left out."""
        values = {"id": id, "size": size, "inserts": inserts}
        merged = await self.session.execute(INSERT if inserts else UPSERT, values)
        return [(line, fault) for line, fault in merged]

    async def discard(self, id: int) -> None:
        await self.session.execute(delete(ImportRow).where(ImportRow.import_id == id))
