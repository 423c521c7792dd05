"""What every answer has and lacks: origins, cookies, a banner; and how soon what was revoked is refused elsewhere."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from httpx import AsyncClient

from app.enums import Role
from app.main import app, create_app
from app.settings import Settings
from plinth.testing.client import Service, serve
from plinth.testing.resources import read_routes, send, write_routes
from plinth.testing.wire import WirePostgres
from tests.app.accounts import PASSWORD, add_accounts, email_of, headers_of
from tests.app.resources import RESOURCES

SHOP = "https://shop.example.com"
FOREIGN = [
    *("null", "http://shop.example.com", "https://shop.example.com:8443", "https://shop.example.com.evil.org"),
    *("https://evilshop.example.com", "https://a.shop.example.com", "https://example.com", "https://shop-example.com"),
    *("https://shop.example.com/", "https://shop.example.com@evil.org", "HTTPS://SHOP.EXAMPLE.COM", "*", "", "file://"),
    *(
        "https://shop.example.com https://evil.org",
        "https://shop.example.com,https://evil.org",
        "https://shop.example.co",
    ),
]
BANNERS = {"server", "x-powered-by", "set-cookie", "via", "x-aspnet-version", "x-runtime"}


@pytest.fixture(params=[False, True], ids=["plain", "credentials"])
async def shop(request: pytest.FixtureRequest, settings: Settings, accounts: None) -> AsyncIterator[AsyncClient]:
    cors = settings.cors.model_validate({"origins": SHOP, "credentials": request.param})
    async with serve(create_app(settings.model_copy(update={"cors": cors}))) as service, service.client() as client:
        yield client


@pytest.mark.parametrize("path", ["/api/products", "/api/users/me", "/api/auth/login", "/nothing"])
async def test_no_other_origin_reads_an_answer(shop: AsyncClient, path: str) -> None:
    for origin in FOREIGN:
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for answer in (
            await shop.get(path, headers={"Origin": origin}),
            await shop.post(path, json={}, headers={"Origin": origin}),
            await shop.options(path, headers=preflight),
        ):
            assert "access-control-allow-origin" not in answer.headers, origin
        assert answer.status_code == 400
    for answer in (
        await shop.get(path, headers={"Origin": SHOP}),
        await shop.options(path, headers={"Origin": SHOP, "Access-Control-Request-Method": "POST"}),
    ):
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "Origin" in answer.headers["vary"]


async def test_without_origins_no_header_allows_one(anonymous: AsyncClient) -> None:
    for method in ("GET", "OPTIONS", "POST"):
        answer = await anonymous.request(method, "/api/users/me", headers={"Origin": SHOP})
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_no_answer_sets_a_cookie_or_names_the_server(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await RESOURCES.create_all(client)
    requests = [("GET", RESOURCES.urls(path)[0], None) for path in read_routes(app)]
    requests += [(method, *RESOURCES.request(method, path, 1)) for method, path in write_routes(app)]
    requests += [(method, path, None) for method in ("GET", "TRACE", "OPTIONS") for path in ("/nothing", "/docs", "/")]
    for method, url, body in requests:
        answer = await send(client, method, url, body)
        assert not BANNERS & {*answer.headers}, f"{method} {url}: {answer.headers}"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if "/auth/" in url or "users" in url:
            await add_accounts(onlooker)
    assert not client.cookies


async def signed_in(client: AsyncClient, role: Role) -> dict[str, str]:
    credentials = {"email": email_of(role), "password": PASSWORD}
    pair = (await client.post("/api/auth/login", json=credentials)).json()
    return {"Authorization": f"Bearer {pair['access_token']}"}


CHANGE = {"current_password": PASSWORD, "new_password": "correct horse battery"}


@pytest.mark.parametrize(
    ("path", "body", "statuses"),
    [
        ("/api/auth/logout", {"all": False}, [401, 200]),
        ("/api/auth/logout", {"all": True}, [401, 401]),
        ("/api/auth/password/change", CHANGE, [200, 401]),
    ],
)
async def test_what_is_revoked_in_one_worker_is_refused_in_another(
    *, service: Service, settings: Settings, accounts: None, path: str, body: dict[str, object], statuses: list[int]
) -> None:
    async with (
        serve(create_app(settings)) as another,
        service.client() as here,
        another.client() as there,
    ):
        mine, other = [await signed_in(here, Role.USER) for _ in range(2)]

        async def answered() -> list[int]:
            return [(await there.get("/api/users/me", headers=each)).status_code for each in (mine, other)]

        assert await answered() == [200, 200]  # and kept in the memory of the other worker
        assert (await here.post(path, json=body, headers=mine)).status_code == 204
        own = [(await here.get("/api/users/me", headers=each)).status_code for each in (mine, other)]
        assert own == statuses, "at once in the worker that has revoked them"
        async with asyncio.timeout(2):
            while await answered() != statuses:  # noqa: ASYNC110 - the invalidation comes from Redis
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("redis", [True, False])
async def test_who_sends_a_request_costs_one_query_without_redis_and_none_with_it(
    settings: Settings, wire: WirePostgres, accounts: None, redis: bool
) -> None:
    changed = {"database": settings.database.model_copy(update={"url": wire.through(settings.database.url)})}
    if not redis:
        changed["redis"] = settings.redis.model_copy(update={"url": None})  # type: ignore[assignment]
    headers = headers_of(settings, Role.USER)
    async with serve(create_app(settings.model_copy(update=changed))) as service, service.client(headers) as client:
        for _ in range(3):  # prepares the statements, on each connection
            assert (await client.get("/api/users")).status_code == 403
        with wire.counting() as count:
            assert (await client.get("/api/users")).status_code == 403
        assert count.round_trips == (0 if redis else 1)
        used = [each for each in count.statements if "logins" in each]
        assert len(used) == count.round_trips
