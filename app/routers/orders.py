from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, status
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.access import IDEMPOTENT, NO_STORE, WRITE_LIMIT, AdministratorDep, UserDep
from app.dependencies import (
    IfMatchDep,
    LinksDep,
    OrderReaderDep,
    OrderServiceDep,
    OrderWatcherDep,
    PathId,
    ValidatorsDep,
)
from app.schemas.base import Page
from app.schemas.orders import OrderCreate, OrderListQuery, OrderRead
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/orders", tags=["orders"], route_class=FastRoute)

LastEventId = Annotated[
    int | None, Header(ge=0, lt=2**63, description="The id of the last event that you have: those after it follow.")
]


@router.get("")
async def list_orders(
    query: Annotated[OrderListQuery, Query()], user: UserDep, orders: OrderReaderDep, links: LinksDep
) -> Page[OrderRead]:
    """List your orders, page by page; administrators see all."""
    page = await orders.page(query, user)
    links.page(page.next_cursor)
    return page


# FastAPI sends a comment every 15 seconds, and the header that keeps Nginx from buffering.
@router.get("/events", dependencies=[NO_STORE], response_class=EventSourceResponse)
async def stream_order_events(
    user: UserDep, orders: OrderWatcherDep, last_event_id: LastEventId = None, live: bool = True
) -> AsyncIterator[ServerSentEvent]:
    """Stream what becomes of your orders, as server-sent events; with `live=false`, only what has until now."""
    async for id, event in orders.events(user, last_event_id, live):
        yield ServerSentEvent(id=str(id), data=event)


@router.get("/{id:digits}", responses=problem_responses(404))
async def get_order(id: PathId, user: UserDep, orders: OrderReaderDep, validators: ValidatorsDep) -> OrderRead:
    """Return one of your orders."""
    order = await orders.get(id, user)
    validators.set(order.version, order.updated_at)
    return order


@router.post(
    "",
    dependencies=[WRITE_LIMIT, IDEMPOTENT],
    status_code=status.HTTP_201_CREATED,
    responses=problem_responses(409),
)
async def create_order(
    data: OrderCreate, user: UserDep, orders: OrderServiceDep, links: LinksDep, validators: ValidatorsDep
) -> OrderRead:
    """Order products, all lines or none. The confirmation is mailed."""
    order = await orders.create(data, user)
    links.created(order.id)
    validators.set(order.version, order.updated_at)
    return order


@router.post("/{id:digits}/cancel", dependencies=[WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def cancel_order(id: PathId, user: UserDep, orders: OrderServiceDep, if_match: IfMatchDep) -> OrderRead:
    """Cancel an order that has not been shipped, and return its products to the stock."""
    return await orders.cancel(id, user, if_match)


@router.post("/{id:digits}/ship", dependencies=[WRITE_LIMIT], responses=problem_responses(404, 409, 412))
async def ship_order(
    id: PathId, administrator: AdministratorDep, orders: OrderServiceDep, if_match: IfMatchDep
) -> OrderRead:
    """Mark an order as shipped, after which it cannot be cancelled."""
    return await orders.ship(id, administrator, if_match)
