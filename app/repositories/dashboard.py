from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import bindparam, func, select

from app.enums import OrderStatus
from app.models import Order, OrderLine, Product
from plinth.database import Query, Readable


class CountRow(NamedTuple):
    status: OrderStatus
    orders: int
    total: Decimal


class LatestRow(NamedTuple):
    id: int
    status: OrderStatus
    total: Decimal
    created_at: datetime


class BoughtRow(NamedTuple):
    product_id: int
    name: str
    quantity: int


class NewRow(NamedTuple):
    id: int
    name: str
    price: Decimal


MINE = Order.user_id == bindparam("user_id")
QUANTITY = func.sum(OrderLine.quantity)
COUNTS = Query(
    CountRow,
    select(Order.status, func.count().label("orders"), func.sum(Order.total, type_=Order.total.type).label("total"))
    .where(MINE)
    .group_by(Order.status)
    .order_by(Order.status),
)
LATEST = Query(
    LatestRow,
    select(Order.id, Order.status, Order.total, Order.created_at).where(MINE).order_by(Order.id.desc()).limit(5),
)
BOUGHT = Query(
    BoughtRow,
    select(OrderLine.product_id, func.max(OrderLine.name).label("name"), QUANTITY.label("quantity"))
    .join(Order, Order.id == OrderLine.order_id)
    .where(MINE, Order.status != OrderStatus.CANCELLED)
    .group_by(OrderLine.product_id)
    .order_by(QUANTITY.desc(), OrderLine.product_id)
    .limit(5),
)
NEW = Query(
    NewRow,
    select(Product.id, Product.name, Product.price).where(Product.stock > 0).order_by(Product.id.desc()).limit(5),
)


class DashboardQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def counts(self, user_id: int) -> list[CountRow]:
        return await self.db.all(COUNTS, user_id=user_id)

    async def latest(self, user_id: int) -> list[LatestRow]:
        return await self.db.all(LATEST, user_id=user_id)

    async def bought(self, user_id: int) -> list[BoughtRow]:
        return await self.db.all(BOUGHT, user_id=user_id)

    async def new(self) -> list[NewRow]:
        return await self.db.all(NEW)
