"""Everything is logged, and everything fails: no secret is in the log or in an answer."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asyncpg import Connection
from httpx import AsyncClient
from pydantic import SecretStr

from app.enums import Role
from app.main import app, create_app
from app.settings import Settings
from plinth.cache import RedisSettings, open_cache, open_redis
from plinth.database import DatabaseSettings, open_database
from plinth.security import Passwords
from plinth.telemetry import configure_logging, logging_config
from plinth.testing.client import Service, serve
from plinth.testing.resources import read_routes, send, write_routes
from tests.app.accounts import HASH, PASSWORD, REFRESH_TOKEN, RESET_TOKEN, VERIFY_TOKEN, headers_of, token_of
from tests.app.resources import NEW_PASSWORD, RESOURCES
from tests.plinth.security.test_leaks import DATABASE_PASSWORD, REDIS_PASSWORD, Log

SECRET_KEY = "the-key-of-this-service-that-no-one-knows"

Broken = Callable[[Settings], Any]


class Handler(logging.StreamHandler[Any]):
    """`configure_logging` replaces the stream handlers, and leaves those of another kind."""


@pytest.fixture(params=["json", "text"])
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    log, root = Log(), logging.getLogger()
    handler, level = Handler(log.stream), root.level
    handler.setFormatter(formatter(request.param))
    handler.addFilter(lambda record: record.name != "httpx")  # the client of this test
    root.addHandler(handler)
    logging.getLogger("tests").error("a line of this test")
    yield log
    root.removeHandler(handler)
    configure_logging("WARNING", "text")
    root.setLevel(level)


def formatter(format: Any) -> logging.Formatter:
    settings: dict[str, Any] = {**logging_config("DEBUG", format)["formatters"]["stdout"]}
    made: logging.Formatter = settings.pop("()")(**settings)
    return made


@asynccontextmanager
async def no_database(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    url = f"postgresql://app:{DATABASE_PASSWORD}@127.0.0.1:9/app"
    async with open_database(DatabaseSettings(url=SecretStr(url), wait_seconds=0), "Plinth") as database:
        yield {"database": database}


@asynccontextmanager
async def no_redis(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    url = SecretStr(f"redis://user:{REDIS_PASSWORD}@127.0.0.1:9/0")
    async with open_redis(RedisSettings(url=url)) as redis, open_cache(settings.cache, redis, 1) as cache:
        yield {"redis": redis, "cache": cache}


@asynccontextmanager
async def no_hasher(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    yield {"passwords": Passwords(executor, 8)}


@asynccontextmanager
async def no_limits(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """What no one has thought of: an error in our own code, with the request in its frames."""
    yield {"limits": None, "tokens": None, "auth": None}


@asynccontextmanager
async def nothing_broken(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    yield {}


@pytest.mark.parametrize("broken", [no_database, no_redis, no_hasher, no_limits, nothing_broken])
async def test_no_secret_is_logged_or_shown_whatever_fails(
    settings: Settings, accounts: None, onlooker: Connection, log: Log, broken: Broken
) -> None:
    own = settings.app.model_copy(update={"secret_key": SecretStr(SECRET_KEY)})
    logged = settings.log.model_copy(update={"level": "DEBUG"})
    settings = settings.model_copy(update={"app": own, "log": logged})
    headers = headers_of(settings, Role.ADMIN)
    token = token_of(settings, Role.ADMIN)
    log.secrets |= {SECRET_KEY, PASSWORD, NEW_PASSWORD, HASH, token, token.rpartition(".")[2]}
    log.secrets |= {REFRESH_TOKEN, RESET_TOKEN, VERIFY_TOKEN, settings.database.url.get_secret_value()}
    async with serve(create_app(settings)) as whole, broken(settings) as instead:
        async with whole.client(headers) as client:
            await RESOURCES.create_all(client)
            key = (await client.post("/api/api-keys", json={"name": "Import"})).json()["key"]
        log.secrets.add(key)
        service = Service(whole.app, {**whole.state, **instead})
        statuses: list[int] = []
        async with service.client(headers) as client:
            requests = [("GET", RESOURCES.urls(path)[0], None) for path in read_routes(app)]
            requests += [(method, *RESOURCES.request(method, path, 1)) for method, path in write_routes(app)]
            requests += [("GET", f"/nothing?token={token}&password={PASSWORD}", None)]
            for method, url, body in sorted(requests, key=lambda request: "users" in request[1]):
                statuses.append(await tried(client, log, method, url, body))
                statuses.append(await tried(client, log, method, url, {"password": [PASSWORD], "token": {"a": key}}))
            for credential in (key, token, token[:-3], REFRESH_TOKEN):
                client.headers["Authorization"] = f"Bearer {credential}"
                statuses.append(await tried(client, log, "GET", "/api/users/me/sessions", None))
    assert broken in {nothing_broken, no_redis} or max(statuses) >= 500, "something has failed"
    written = log.stream.getvalue()
    assert "/api/auth/login" in written
    assert "DEBUG" in written
    assert "Traceback" in written or broken in {nothing_broken, no_redis, no_database}
    log.is_clean()


async def tried(client: AsyncClient, log: Log, method: str, url: str, body: Any) -> int:
    answer = await send(client, method, url, body)
    if answer.status_code >= 400:
        shown = answer.text + str(answer.headers)
        assert not [secret for secret in log.secrets if secret in shown], f"{method} {url}"
    return answer.status_code


HOSTILE = [
    "a\r\nInjected: yes",
    'a"} {"level": "CRITICAL"',
    "\x1b[2J\x1b[31mroot",
    "a\u2028b\u0085c",
    "%(levelname)s %s {0}",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("format", ["json", "text"])
async def test_no_client_writes_a_line_of_the_log(
    anonymous: AsyncClient, caplog: pytest.LogCaptureFixture, text: str, format: Any
) -> None:
    shown = formatter(format)
    caplog.set_level("DEBUG")
    raw = text.encode()
    for header in (
        b"User-Agent",
        b"X-Request-ID",
        b"Authorization",
        b"X-Forwarded-For",
        b"Referer",
        b"Idempotency-Key",
    ):
        await anonymous.get("/api/users/me", headers={header: raw})
        await anonymous.post("/api/auth/login", json={"email": text, "password": text}, headers={header: raw})
    await anonymous.post("/api/auth/login", json={"email": "user@example.com", "password": text, text: text})
    await anonymous.get("/api/nothing", params={text: text})
    await anonymous.get(f"/api/{text.encode().hex()}%0d%0a")
    for record in caplog.records:
        line = shown.format(record)
        if record.exc_info is None:
            assert len(line.splitlines()) == 1, line
        assert "\x1b" not in line
        assert record.levelname != "CRITICAL"
