from sqlalchemy import select, text

from app import example_data
from app.models import Category, Product
from plinth.database import Transaction


async def load_example_data(transaction: Transaction, products: int) -> int:
    """Fill an empty catalogue. Returns how many products were loaded: none where there is anything already."""
    session = transaction.session
    # Two seeds at once would both find it empty; readers are let through.
    await session.execute(text("LOCK TABLE categories, products IN SHARE ROW EXCLUSIVE MODE"))
    if await session.scalar(select(Category.id).limit(1)) is not None:
        return 0
    categories = [Category(name=name, description=description) for name, description in example_data.categories()]
    session.add_all(categories)
    await session.flush()
    await transaction.copy_rows(
        Product.__tablename__,
        ["sku", "name", "description", "price", "stock", "category_id"],
        ((*product, categories[category].id) for *product, category in example_data.products(products)),
    )
    await session.execute(text("ANALYZE categories, products"))
    return products
