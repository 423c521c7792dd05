from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import cast

import asyncpg
from sqlalchemy import select, text

from app import example_data
from app.models import Category, Product
from app.repositories.users import UserRepository
from plinth.database import Session

Rows = Iterable[example_data.ProductRow]


async def load_example_accounts(session: Session, password_hash: str) -> None:
    """Add the accounts that are not there."""
    users = UserRepository(session)
    for email, role in example_data.EXAMPLE_ACCOUNTS.items():
        values = {"email": email, "name": role.title(), "role": role, "verified_at": datetime.now(UTC)}
        await users.add(password_hash=password_hash, **values)


async def load_example_data(session: Session, products: int, progress: Callable[[Rows], Rows] = iter) -> int:
    """Fill an empty catalogue. Returns the number of products: 0 where there is anything already."""
    # Two loads at once would both find it empty. Readers are not blocked.
    await session.execute(text("LOCK TABLE categories, products IN SHARE ROW EXCLUSIVE MODE"))
    if await session.scalar(select(Category.id).limit(1)) is not None:
        return 0
    categories = [Category(name=name, description=description) for name, description in example_data.categories()]
    session.add_all(categories)
    await session.flush()
    # COPY, a hundred times faster than INSERT, in the same transaction. The driver takes prices in minor units.
    pooled = await (await session.connection()).get_raw_connection()
    driver_connection = cast(asyncpg.Connection, pooled.driver_connection)
    await driver_connection.copy_records_to_table(
        Product.__tablename__,
        columns=["sku", "name", "description", "price", "stock", "category_id"],
        records=((*row, categories[category].id) for *row, category in progress(example_data.products(products))),
    )
    await session.execute(text("ANALYZE categories, products"))
    return products
