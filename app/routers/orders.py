from typing import Annotated

from fastapi import APIRouter, Query, status

from app.access import IDEMPOTENT, WRITE_LIMIT, AdministratorDep, UserDep
from app.dependencies import IfMatchDep, LinksDep, OrderReaderDep, OrderServiceDep, PathId, ValidatorsDep
from app.schemas.base import Page
from app.schemas.orders import OrderCreate, OrderListQuery, OrderRead
from plinth.http import FastRoute, problem_responses

router = APIRouter(prefix="/api/orders", tags=["orders"], route_class=FastRoute)


@router.get("")
async def list_orders(
    query: Annotated[OrderListQuery, Query()], user: UserDep, orders: OrderReaderDep, links: LinksDep
) -> Page[OrderRead]:
    """List your orders, page by page; administrators see all."""
    page = await orders.page(query, user)
    links.page(page.next_cursor)
    return page


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
