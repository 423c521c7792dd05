from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.orm import selectinload

from app.enums import OrderStatus
from app.models import Order, OrderLine, Product
from app.models.orders import OrderEvent
from plinth.database import Keyset, KeysetPage, Query, Readable, Session


class OrderRow(NamedTuple):
    id: int
    user_id: int | None
    status: OrderStatus
    total: Decimal
    version: int
    created_at: datetime
    updated_at: datetime


class LineRow(NamedTuple):
    order_id: int
    product_id: int
    sku: str
    name: str
    price: Decimal
    quantity: int


class EventRow(NamedTuple):
    id: int
    order_id: int
    status: OrderStatus
    created_at: datetime


ORDERS = select(*(getattr(Order, name) for name in OrderRow._fields))
BY_ID = Query(OrderRow, ORDERS.where(Order.id == bindparam("id")))
PAGES = Keyset(
    "orders",
    OrderRow,
    ORDERS,
    sorts={"id": Order.id},
    filters={"status": Order.status == bindparam("status"), "user_id": Order.user_id == bindparam("user_id")},
)
LINES = Query(
    LineRow,
    select(*(getattr(OrderLine, name) for name in LineRow._fields))
    .where(OrderLine.order_id.in_(bindparam("orders", expanding=True)))
    .order_by(OrderLine.order_id, OrderLine.product_id),
)
# The same by the session, for changes: one statement for the order, one for its lines with their products.
WITH_LINES = selectinload(Order.lines).joinedload(OrderLine.product)
EVENTS_KEPT = timedelta(days=30)  # for clients that connect again
OF_USER = OrderEvent.user_id == bindparam("user_id")
NEWEST_EVENT = Query(int, select(func.coalesce(func.max(OrderEvent.id), 0)).where(OF_USER))
EVENTS = Query(
    EventRow,
    select(*(getattr(OrderEvent, name) for name in EventRow._fields))
    .where(OF_USER, OrderEvent.id > bindparam("after"))
    .order_by(OrderEvent.id)
    .limit(100),
)


class OrderQueries:
    def __init__(self, db: Readable) -> None:
        self.db = db

    async def get(self, id: int) -> OrderRow | None:
        return await self.db.first(BY_ID, id=id)

    async def page(self, **query: Any) -> KeysetPage[OrderRow]:
        return await PAGES.page(self.db, **query)

    async def lines(self, orders: Iterable[int]) -> list[LineRow]:
        """The lines of all these orders, in one statement: one for each order would be N+1."""
        return await self.db.all(LINES, orders=[*orders])

    async def newest_event(self, user_id: int) -> int:
        return await self.db.first(NEWEST_EVENT, user_id=user_id) or 0

    async def events(self, user_id: int, after: int) -> list[EventRow]:
        """The next of this user, at most 100."""
        return await self.db.all(EVENTS, user_id=user_id, after=after)


class OrderRepository(OrderQueries):
    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.session = session

    async def find(self, id: int) -> Order | None:
        """The entity with its lines and their products; the order alone is locked until the end of the transaction."""
        return await self.session.get(Order, id, with_for_update=True, options=[WITH_LINES])

    async def lock_products(self, ids: Iterable[int]) -> dict[int, Product]:
        """The products by id, locked in the order of their ids until the end of the transaction.

        Without that order, a transaction that has locked 1 and waits for 2 would meet one that has locked 2 and waits
        for 1.
        """
        statement = select(Product).where(Product.id.in_([*ids])).order_by(Product.id).with_for_update(of=Product)
        # Those that the session has read before are read again: until the lock they may have changed.
        products = await self.session.scalars(statement, execution_options={"populate_existing": True})
        return {product.id: product for product in products}

    async def add(self, order: Order) -> None:
        self.session.add(order)
        await self.session.flush()

    async def record(self, order: Order) -> None:
        """Add an event for the streams of its user, and delete the user's old ones.

        To be called last, since other transactions of the user wait from here on.
        """
        if order.user_id is not None:
            await self.session.notify(topic_of(order.user_id))
            values = {"order_id": order.id, "user_id": order.user_id, "status": order.status}
            old = OrderEvent.user_id == order.user_id, OrderEvent.created_at < func.now() - EVENTS_KEPT
            await self.session.execute(insert(OrderEvent).values(values).add_cte(delete(OrderEvent).where(*old).cte()))

    async def flush(self) -> None:
        await self.session.flush()


def topic_of(user_id: int) -> str:
    """What the events of a user are notified by."""
    return f"orders:{user_id}"
