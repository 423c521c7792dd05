"""Where limits act: at routes, and on reads before the cache and routing. What a client reads of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from fastapi import APIRouter, Header
from httpx import ASGITransport, AsyncClient, Response
from prometheus_client import REGISTRY
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from plinth.errors import ConfigurationError
from plinth.http import FastRoute
from plinth.http.security import cors
from plinth.security import LimitMiddleware, limited
from plinth.security.limiting import address_key
from plinth.settings import load_settings
from plinth.testing.client import Service, serve
from plinth.testing.wire import WireRedis
from tests.plinth.http.apps import answering, http_scope, messages


async def principal(name: Annotated[str, Header()] = "") -> str:
    return name


def routers() -> Iterator[APIRouter]:
    for prefix, route_class in (("/fast", FastRoute), ("/stock", APIRouter().route_class)):
        router = APIRouter(prefix=prefix, route_class=route_class)

        @router.post("/named", dependencies=[limited(f"named{prefix}", "2/31days")])
        async def named() -> str:
            return "done"

        @router.post("/principal", dependencies=[limited(f"principal{prefix}", "2/31days", key=principal)])
        async def by_principal() -> str:
            return "done"

        @router.post("/both", dependencies=[limited(f"a{prefix}", "3/31days"), limited(f"b{prefix}", "2/30days")])
        async def both() -> str:
            return "done"

        @router.post("/setting", dependencies=[limited("writes")])
        async def setting() -> str:
            return "done"

        @router.post("/invalid", dependencies=[limited(f"invalid{prefix}", "2/31days")])
        async def invalid(number: int) -> str:
            return "done"

        @router.get("/read", dependencies=[limited(f"read{prefix}", "2/31days")])
        async def read() -> str:
            return "done"

        yield router


@asynccontextmanager
async def limiting(settings: Settings, limit: dict[str, str] | None = None, **changes: Any) -> AsyncIterator[Service]:
    """The app with the limits, routes of the tests' own, and a namespace in Redis of its own."""
    cache = settings.cache.model_copy(update={"namespace": f"test-{uuid4()}"})
    own = settings.limit.model_copy(update=limit or {})
    app = create_app(settings.model_copy(update={"cache": cache, "limit": own, **changes}))
    for router in routers():
        app.include_router(router)
    async with serve(app) as service:
        yield service


def client_at(service: Service, address: str, **headers: str) -> AsyncClient:
    transport = ASGITransport(service, client=(address, 4711))
    return AsyncClient(transport=transport, base_url="http://test", headers=headers)


@pytest.fixture
async def limited_service(settings: Settings) -> AsyncIterator[Service]:
    async with limiting(settings, {"writes": "2/31days", "reads": "20/31days"}, web_concurrency=2) as service:
        yield service


def quota(answer: Response) -> tuple[str | None, str | None]:
    return answer.headers.get("RateLimit"), answer.headers.get("RateLimit-Policy")


def refusals(name: str) -> float:
    return REGISTRY.get_sample_value("limit_refusals_total", {"limit": name}) or 0.0


@pytest.mark.parametrize("prefix", ["/fast", "/stock"])
async def test_a_route_shows_its_quota_and_then_answers_429(
    prefix: str, limited_service: Service, solved_by_fastapi: list[str]
) -> None:
    name = f"named{prefix}"
    before = refusals(name)
    async with limited_service.client() as client:
        answers = [await client.post(f"{prefix}/named") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert refusals(name) == before + 2
    for answer, left in zip(answers, (1, 0, 0, 0), strict=True):
        shown, policy = quota(answer)
        head, _, seconds = (shown or "").rpartition(";t=")
        assert head == f'"{name}";r={left}'
        assert 0 < int(seconds) <= 31 * 86_400
        assert policy == f'"{name}";q=2;w=2678400'
        if answer.status_code == 429:
            assert answer.headers["Retry-After"] == seconds
            assert answer.headers["Content-Type"] == "application/problem+json"
            problem = answer.json()
            assert problem["type"] == "urn:problem-type:too-many-requests"
            assert problem["detail"] == f"There were too many requests. Try again in {seconds} seconds."
    assert bool(solved_by_fastapi) == (prefix == "/stock"), "a limited FastRoute is on the fast path"


@pytest.mark.parametrize("prefix", ["/fast", "/stock"])
async def test_the_key_is_what_its_dependency_returns(prefix: str, limited_service: Service) -> None:
    for name in ("ada", "grace"):
        statuses = []
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            async with client_at(limited_service, address, name=name) as client:
                statuses.append((await client.post(f"{prefix}/principal")).status_code)
        assert statuses == [200, 200, 429]


async def test_a_route_with_two_limits_shows_both_and_obeys_the_narrower(limited_service: Service) -> None:
    async with limited_service.client() as client:
        answers = [await client.post("/fast/both") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"a/fast";q=3;w=2678400, "b/fast";q=2;w=2592000'
    assert answers[2].headers["RateLimit"].startswith('"a/fast";r=0;t=')


async def test_all_routes_with_a_name_share_its_limit(limited_service: Service) -> None:
    async with limited_service.client() as client:
        statuses = [(await client.post(f"{prefix}/setting")).status_code for prefix in ("/fast", "/stock", "/fast")]
        assert statuses == [200, 200, 429]
        refused = await client.post("/stock/setting")
        assert (refused.status_code, quota(refused)[1]) == (429, '"writes";q=2;w=2678400')


async def test_other_errors_count_and_show_the_quota_too(limited_service: Service) -> None:
    async with limited_service.client() as client:
        answers = [await client.post("/fast/invalid?number=x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [422, 422, 429]
    assert quota(answers[0])[1] == '"invalid/fast";q=2;w=2678400'


async def test_a_limit_that_is_off_counts_nothing(settings: Settings) -> None:
    async with limiting(settings, {"writes": "off", "reads": "off"}) as service, service.client() as client:
        answers = [await client.post("/fast/setting") for _ in range(5)]
        answers += [await client.get("/api/categories") for _ in range(5)]
    assert {(answer.status_code, *quota(answer)) for answer in answers} == {(200, None, None)}


@pytest.mark.parametrize("method", ["get", "head"])
async def test_reads_are_limited_before_the_cache_and_show_little(method: str, limited_service: Service) -> None:
    before = refusals("reads")
    async with limited_service.client() as client:
        answers = [await client.request(method, "/api/categories") for _ in range(12)]
        assert (await client.get("/nowhere")).status_code == 429, "and before routing"
        assert (await client.post("/fast/named")).status_code == 200
    assert refusals("reads") == before + 3
    # The share of one of two workers is 10, of which a tenth is 1.
    assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
    assert ["X-Cache" in answer.headers for answer in answers] == [True] * 10 + [False] * 2
    assert [quota(answer)[0] is None for answer in answers] == [True] * 8 + [False] * 4
    assert [answer.headers["RateLimit"].rpartition(";")[0] for answer in answers[8:]] == [
        '"reads";r=1',
        '"reads";r=0',
        '"reads";r=0',
        '"reads";r=0',
    ]
    last = answers[-1]
    assert last.headers["RateLimit"].endswith(f";t={last.headers['Retry-After']}")
    assert last.headers["RateLimit-Policy"] == '"reads";q=20;w=2678400'


async def test_a_limited_request_takes_one_command(settings: Settings, redis_url: str) -> None:
    address = urlsplit(redis_url)
    async with WireRedis(address.hostname or "", address.port or 6379) as wire:
        redis = settings.redis.model_copy(update={"url": wire.through(SecretStr(redis_url))})
        async with limiting(settings, redis=redis) as service, service.client() as client:
            await client.post("/fast/named")  # connects
            for status in (200, 429):
                with wire.counting() as count:
                    assert (await client.post("/fast/named")).status_code == status
                assert [each for each in count.commands if each not in {"PING", "GET"}] == ["EVALSHA"]


async def test_probes_are_not_limited(limited_service: Service) -> None:
    async with limited_service.client() as client:
        statuses = {(await client.get(path)).status_code for path in ("/health/live", "/health/ready") * 15}
    assert statuses == {200}


async def test_what_a_client_writes_into_a_header_does_not_help(settings: Settings) -> None:
    async with limiting(settings, {"reads": "2/31days", "writes": "2/31days"}, web_concurrency=1) as service:
        for method, path in (("GET", "/api/categories"), ("POST", "/fast/setting")):
            statuses = []
            for number in range(4):
                spoofed = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
                async with client_at(service, "203.0.113.9", **spoofed) as client:
                    statuses.append((await client.request(method, path)).status_code)
            assert statuses == [200, 200, 429, 429]


async def test_behind_a_proxy_the_last_address_that_it_wrote_counts(settings: Settings) -> None:
    async with limiting(settings, {"writes": "2/31days"}) as service:
        statuses = []
        for number in range(3):
            forwarded = f"198.51.100.{number}, 203.0.113.9"  # the first is the client's own
            async with client_at(service, "127.0.0.1", **{"X-Forwarded-For": forwarded}) as client:
                statuses.append((await client.post("/fast/setting")).status_code)
        assert statuses == [200, 200, 429]
        async with client_at(service, "127.0.0.1", **{"X-Forwarded-For": "203.0.113.10"}) as client:
            assert (await client.post("/fast/setting")).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("203.0.113.9", "203.0.113.10", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("::ffff:203.0.113.9", "::ffff:203.0.113.10", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("no:address", "another:one", False),
    ],
)
def test_ipv6_is_counted_by_64_bits(one: str, other: str, together: bool) -> None:
    assert (address_key(one) == address_key(other)) is together


async def test_a_request_without_an_address_is_limited_at_routes_only(limited_service: Service) -> None:
    async def without(method: str, path: str) -> int:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await limited_service({**scope, "client": None}, receive, send)

        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            return (await client.request(method, path)).status_code

    assert [await without("POST", "/fast/setting") for _ in range(3)] == [200, 200, 429]
    assert {await without("GET", "/api/categories") for _ in range(15)} == {200}


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    app = LimitMiddleware(answering(b""), "2/31days", 1)
    for number in range(30_000):
        await messages(app, {**http_scope(), "client": (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)})
    assert app.reads is not None
    assert len(app.reads._counted) == 20_000


async def test_simultaneous_requests_are_counted_exactly(limited_service: Service) -> None:
    async with limited_service.client() as client:
        answers = await asyncio.gather(*(client.post("/fast/named") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [429] * 18


def test_browsers_may_read_the_fields(settings: Settings) -> None:
    exposed: Any = cors(settings.cors).kwargs["expose_headers"]
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)


def test_a_name_without_a_limit_must_be_a_setting() -> None:
    with pytest.raises(ValueError, match="There is no setting LIMIT_LOGINS: write the limit here"):
        limited("logins")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMIT_AUTH", "often")
    with pytest.raises(ConfigurationError, match=r"^LIMIT_AUTH: must look like `600/minute`"):
        load_settings(Settings)
