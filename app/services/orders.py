from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal

from app import tags
from app.enums import OrderStatus
from app.jobs import ORDER_MAIL, OrderMail
from app.models import Order, OrderLine
from app.repositories.orders import PAGES, LineRow, OrderQueries, OrderRepository, OrderRow, topic_of
from app.schemas.base import Page
from app.schemas.orders import OrderCreate, OrderEventRead, OrderLineRead, OrderListQuery, OrderRead
from app.scopes import USERS_ADMIN
from plinth.cache import Invalidate
from plinth.database import Notifications, Versions, check_version
from plinth.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from plinth.jobs import Jobs
from plinth.security import Principal

PAGES.check(OrderListQuery)
# From which state an order may get into which.
MOVES: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.PENDING: frozenset({OrderStatus.SHIPPED, OrderStatus.CANCELLED}),
    OrderStatus.SHIPPED: frozenset(),
    OrderStatus.CANCELLED: frozenset(),
}
# A client connects again then, and shows that it may still read them.
STREAM_SECONDS = 600.0
MOST_STOCK = 2**31 - 1  # that the column holds


class OrderReader:
    """Shows users their own orders, and administrators all."""

    def __init__(self, orders: OrderQueries) -> None:
        self._orders = orders

    async def page(self, query: OrderListQuery, principal: Principal) -> Page[OrderRead]:
        owner = None if _is_administrator(principal) else int(principal.id)
        page = await self._orders.page(**query.model_dump(), user_id=owner)
        lines: defaultdict[int, list[LineRow]] = defaultdict(list)
        for line in await self._orders.lines(row.id for row in page.rows):
            lines[line.order_id].append(line)
        items = [_read(row, lines[row.id]) for row in page.rows]
        return Page[OrderRead](items=items, next_cursor=page.next_cursor, total=page.total)

    async def get(self, id: int, principal: Principal) -> OrderRead:
        """Raises NotFoundError, also for an order of another user."""
        row = await self._orders.get(id)
        if row is None or not _may_see(principal, row):
            raise NotFoundError("order", id)
        return _read(row, await self._orders.lines([id]))


class OrderWatcher:
    def __init__(self, orders: OrderQueries, notifications: Notifications) -> None:
        self._orders = orders
        self._notifications = notifications

    async def events(
        self, principal: Principal, after: int | None, live: bool
    ) -> AsyncIterator[tuple[int, OrderEventRead | None]]:
        """The events of a user after that of an id, or from now on, each with its id.

        Before them comes the id of the last one that the client has, so that it misses none if it is cut off at once.
        """
        user_id, last = int(principal.id), None
        try:
            async for _ in self._notifications.watch(topic_of(user_id), STREAM_SECONDS):
                if last is None:
                    newest = await self._orders.newest_event(user_id)
                    last = newest if after is None else min(after, newest)
                    yield last, None
                while events := await self._orders.events(user_id, last):
                    for event in events:
                        last = event.id
                        yield last, OrderEventRead.model_validate(event, from_attributes=True)
                if not live:
                    return
        except UnavailableError:
            return  # the stream ends, so that the client connects again and goes on after its last event


class OrderService:
    """Changes orders in the transaction of the request."""

    def __init__(self, orders: OrderRepository, jobs: Jobs, invalidate: Invalidate) -> None:
        self._orders = orders
        self._jobs = jobs
        self._invalidate = invalidate

    async def create(self, data: OrderCreate, principal: Principal) -> OrderRead:
        """Take the stock. Raises InvalidError for a product that does not exist, ConflictError for too little stock."""
        products = await self._orders.lock_products(line.product_id for line in data.lines)
        lines = []
        for place, line in enumerate(data.lines):
            product = products.get(line.product_id)
            if product is None:
                sentence = "This product_id refers to something that does not exist."
                raise InvalidError("product_id", sentence).at("lines", place, "product_id")
            if product.stock < line.quantity:
                sentence = f"Line {place + 1} asks for {line.quantity} of {product.sku}; {product.stock} are left."
                raise ConflictError(sentence).at("lines", place, "quantity")
            product.stock -= line.quantity
            copied = {"sku": product.sku, "name": product.name, "price": product.price}
            lines.append(OrderLine(product_id=product.id, quantity=line.quantity, **copied))
        lines.sort(key=lambda line: line.product_id)  # as they are read
        total = sum((line.price * line.quantity for line in lines), Decimal(0))
        order = Order(user_id=int(principal.id), status=OrderStatus.PENDING, total=total, lines=lines)
        await self._orders.add(order)
        await self._jobs.enqueue(ORDER_MAIL, OrderMail(order_id=order.id))
        await self._orders.record(order)
        self._invalidate(tags.PRODUCTS, *(tags.PRODUCT(id) for id in products), tags.ORDERS(order.user_id))
        return _read(order, order.lines)

    async def cancel(self, id: int, principal: Principal, versions: Versions = None) -> OrderRead:
        """Return the stock. Raises NotFoundError, ChangedError, and ConflictError where it cannot be cancelled."""
        order = await self._move(id, OrderStatus.CANCELLED, principal, versions)
        # The order was locked before: two that cancel it do not both get here.
        products = await self._orders.lock_products(line.product_id for line in order.lines)
        for line in order.lines:
            if line.product.stock + line.quantity > MOST_STOCK:
                raise ConflictError(f"The stock of {line.sku} is too large for {line.quantity} more. Correct it first.")
            line.product.stock += line.quantity
        await self._orders.flush()
        await self._orders.record(order)
        self._invalidate(tags.PRODUCTS, *(tags.PRODUCT(id) for id in products), tags.ORDERS(order.user_id))
        return _read(order, order.lines)

    async def ship(self, id: int, principal: Principal, versions: Versions = None) -> OrderRead:
        """Raises what `cancel` raises."""
        order = await self._move(id, OrderStatus.SHIPPED, principal, versions)
        await self._orders.flush()
        await self._orders.record(order)
        self._invalidate(tags.ORDERS(order.user_id))
        return _read(order, order.lines)

    async def _move(self, id: int, status: OrderStatus, principal: Principal, versions: Versions) -> Order:
        order = await self._orders.find(id)
        if order is None or not _may_see(principal, order):
            raise NotFoundError("order", id)
        check_version(order, versions)
        if status not in MOVES[order.status]:
            raise ConflictError(f"Order {id} is {order.status} already, and cannot be {status} any more.")
        order.status = status
        return order


def _is_administrator(principal: Principal) -> bool:
    return USERS_ADMIN in principal.scopes


def _may_see(principal: Principal, order: Order | OrderRow) -> bool:
    return principal.owner == f"user:{order.user_id}" or _is_administrator(principal)


def _read(order: Order | OrderRow, lines: Sequence[OrderLine | LineRow]) -> OrderRead:
    return OrderRead(
        id=order.id,
        user_id=order.user_id,
        status=order.status,
        total=order.total,
        lines=[OrderLineRead.model_validate(line, from_attributes=True) for line in lines],
        version=order.version,
        created_at=order.created_at,
        updated_at=order.updated_at,
    )
