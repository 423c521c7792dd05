from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app import example_data
from app.database import copy_rows
from app.models import Category, Product


async def load_example_data(session: AsyncSession, products: int) -> int:
    """Fill an empty catalogue. Returns how many products were loaded: none where there is anything already."""
    # Two seeds at once would both find it empty; readers are let through.
    await session.execute(text("LOCK TABLE categories, products IN SHARE ROW EXCLUSIVE MODE"))
    if await session.scalar(select(Category.id).limit(1)) is not None:
        return 0
    values = [{"name": name, "description": description} for name, description in example_data.categories()]
    inserted = insert(Category).returning(Category.id, sort_by_parameter_order=True)
    ids = list(await session.scalars(inserted, values))
    await copy_rows(
        session,
        Product.__tablename__,
        ["sku", "name", "description", "price", "stock", "category_id"],
        ((*product, ids[category]) for *product, category in example_data.products(products)),
    )
    await session.execute(text("ANALYZE categories, products"))
    return products
