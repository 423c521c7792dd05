from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Integer, bindparam, func, select

from app.models import Product
from plinth.database import Query, Readable


class PriceRow(NamedTuple):
    price: Decimal
    products: int


class StockRow(NamedTuple):
    sku: str
    name: str
    stock: int


PRICES = Query(
    PriceRow, select(Product.price, func.count().label("products")).group_by(Product.price).order_by(Product.price)
)
LOW_STOCK = Query(
    StockRow,
    select(Product.sku, Product.name, Product.stock)
    .where(Product.stock < bindparam("below", type_=Integer))
    .order_by(Product.stock, Product.sku)
    .limit(100),
)


class ReportQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def prices(self) -> list[PriceRow]:
        """Each price and how many products have it, the lowest first."""
        return await self.db.all(PRICES)

    async def low_stock(self, below: int) -> list[StockRow]:
        return await self.db.all(LOW_STOCK, below=below)
