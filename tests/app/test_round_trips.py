"""What each endpoint costs on the wire to PostgreSQL. A new endpoint is added here, or the last test fails.

What is sent is in tests/app/resources.py.
"""

import asyncpg
import pytest
from fastapi.routing import APIRoute
from httpx import AsyncClient

from app.routers import DOCS_ROUTERS, ROUTERS
from plinth.testing.resources import send
from plinth.testing.wire import WirePostgres
from tests.app.accounts import add_accounts
from tests.app.resources import RESOURCES

READ = 1
CREATE = 4  # BEGIN, INSERT, SELECT, COMMIT
UPDATE = 5  # BEGIN, SELECT FOR UPDATE, UPDATE, SELECT, COMMIT
DELETE = 4  # BEGIN, SELECT FOR UPDATE, DELETE, COMMIT
RECORDED = 1  # who makes the change, for the audit trail
COUNTED = 7  # BEGIN, two INSERTs that count an attempt, COMMIT; BEGIN, DELETE, COMMIT
LOGIN = COUNTED + READ + 5  # BEGIN, SELECT FOR UPDATE, two INSERTs, COMMIT

ROUND_TRIPS: dict[tuple[str, str], int] = {
    ("GET", "/api/products"): READ,
    ("GET", "/api/products/search"): 4,  # BEGIN, SET, SELECT, COMMIT
    ("GET", "/api/products/facets"): 0,  # remembered in the service
    ("GET", "/api/products/export"): 5,  # connects, prepares, quotes the values, COPY, closes
    ("GET", "/api/products/{id}"): READ,
    ("POST", "/api/products"): CREATE,
    ("PUT", "/api/products/{id}"): UPDATE,
    ("PATCH", "/api/products/{id}"): UPDATE,
    ("DELETE", "/api/products/{id}"): DELETE,
    ("POST", "/api/products/bulk"): 10,  # whatever the number of rows: COPY, and one statement in a savepoint
    ("GET", "/api/imports/{id}"): READ,
    ("GET", "/api/products/{id}/image"): READ,
    ("PUT", "/api/products/{id}/image"): READ + 5,  # BEGIN, two SELECT FOR UPDATE, INSERT, COMMIT
    ("DELETE", "/api/products/{id}/image"): DELETE,
    ("GET", "/api/categories"): READ,
    ("GET", "/api/categories/{id}"): READ,
    ("POST", "/api/categories"): CREATE,
    ("PUT", "/api/categories/{id}"): UPDATE,
    ("PATCH", "/api/categories/{id}"): UPDATE,
    ("DELETE", "/api/categories/{id}"): DELETE,
    ("GET", "/api/dashboard"): 0,  # remembered in the service
    ("GET", "/api/orders"): 2 * READ,  # the orders, and the lines of all of them
    ("GET", "/api/orders/{id}"): 2 * READ,
    ("GET", "/api/orders/events"): 2 * READ,  # where they end, and what is after that
    ("POST", "/api/orders"): 9,  # BEGIN, SELECT FOR UPDATE, UPDATE, two INSERTs, the mail's job and the event, COMMIT
    ("POST", "/api/orders/{id}/cancel"): 9,  # BEGIN, three SELECTs, two UPDATEs, the event, COMMIT
    ("POST", "/api/orders/{id}/ship"): 7,  # BEGIN, two SELECTs, UPDATE, the event, COMMIT
    ("POST", "/api/auth/register"): 5,  # BEGIN, INSERT, SELECT, INSERT of the mail's job, COMMIT
    ("POST", "/api/auth/login"): LOGIN,
    ("POST", "/api/auth/token"): LOGIN,
    ("POST", "/api/auth/refresh"): 6,  # BEGIN, SELECT FOR UPDATE, two UPDATEs, INSERT, COMMIT
    ("POST", "/api/auth/logout"): 3,  # BEGIN, DELETE, COMMIT
    ("POST", "/api/auth/verify-email"): 4,  # BEGIN, DELETE, SELECT FOR UPDATE, COMMIT
    ("POST", "/api/auth/password/forgot"): READ + 3,  # BEGIN, INSERT of the mail's job, COMMIT
    ("POST", "/api/auth/password/reset"): READ + 8,  # the password and all that it ends, and a mail's job
    ("POST", "/api/auth/password/change"): READ + COUNTED + 7 + RECORDED,
    ("GET", "/api/auth/jwks"): 0,
    ("GET", "/api/users/me"): READ,
    ("PATCH", "/api/users/me"): UPDATE + RECORDED,
    ("DELETE", "/api/users/me"): DELETE + RECORDED,
    ("GET", "/api/users/me/sessions"): READ,
    ("DELETE", "/api/users/me/sessions/{id}"): 3,  # BEGIN, DELETE, COMMIT
    ("GET", "/api/users"): READ,
    ("GET", "/api/users/{id}"): READ,
    ("PATCH", "/api/users/{id}"): UPDATE + RECORDED,
    ("GET", "/api/api-keys"): READ,
    ("POST", "/api/api-keys"): 5 + RECORDED,  # BEGIN, two SELECTs, INSERT, COMMIT
    ("DELETE", "/api/api-keys/{id}"): DELETE + RECORDED,
    ("GET", "/api/audit"): READ,
    ("GET", "/api/reports/prices"): READ,
    ("POST", "/api/reports/prices"): 5,  # BEGIN, INSERT, prepare and SELECT of the job that is queued already, COMMIT
    ("GET", "/api/jobs/{id}"): READ,
    ("GET", "/health/live"): 0,
    ("GET", "/health/ready"): READ,
}


@pytest.mark.parametrize(("method", "path"), ROUND_TRIPS)
async def test_an_endpoint_takes_its_round_trips(
    wired: AsyncClient, wire: WirePostgres, onlooker: asyncpg.Connection, method: str, path: str
) -> None:
    async def call(number: int) -> None:
        url, body = (RESOURCES.urls(path)[0], None) if method == "GET" else RESOURCES.request(method, path, number)
        answer = await send(wired, method, url, body)
        assert answer.is_success, answer.text

    await onlooker.execute("UPDATE products SET stock = 7")  # or only the first change would change it
    await call(1)  # prepares the statement, which is once in a connection's life
    if path.startswith(("/api/auth/", "/api/users/")):
        await add_accounts(onlooker)  # some calls end the session, or use up a token
    await onlooker.execute("UPDATE orders SET status = 'pending'")  # which only the first call may leave
    assert (await wired.get("/api/users/me")).is_success  # who sends the request is cached
    with wire.counting() as count:
        await call(2)
    assert count.round_trips == ROUND_TRIPS[method, path], count.statements


def test_every_endpoint_is_counted() -> None:
    routes = [route for router in (*ROUTERS, *DOCS_ROUTERS) for route in router.routes if isinstance(route, APIRoute)]
    assert {(method, route.path_format) for route in routes for method in route.methods or ()} == set(ROUND_TRIPS)
