"""docs/plinth/recipes.md is true: each piece of code there runs, in the real app, and does what its section says."""

import asyncio
import importlib.util
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI, HTTPException, Request
from httpx import AsyncClient

from app.main import create_app
from app.repositories.products import ProductRepository
from app.settings import Settings
from plinth.database import Database
from plinth.database.engine import create_engine
from plinth.database.pulse import Pulse
from plinth.errors import ConflictError, NotFoundError, UnavailableError
from plinth.resilience import OutgoingSettings, open_outgoing
from plinth.settings import load_settings
from plinth.testing.client import Service, serve, served
from tests.app.resources import RESOURCES
from tests.tools.support import ROOT

PAGE = (ROOT / "docs/plinth/recipes.md").read_text()
RECIPES = dict(re.findall(r"(?ms)^## ([^\n]+)\n.*?```python\n(.*?)^```", PAGE))
IMPORTS = RECIPES.pop("Imports")


def recipe(title: str) -> SimpleNamespace:
    """What the code of a section defines."""
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(IMPORTS, names)
    exec(compile(RECIPES[title], f"docs/plinth/recipes.md: {title}", "exec", dont_inherit=True), names)
    return SimpleNamespace(**names)


@asynccontextmanager
async def using(settings: Settings, change: Callable[[FastAPI], object]) -> AsyncIterator[Service]:
    app = create_app(settings)
    change(app)
    async with serve(app) as service:
        yield service


def test_every_section_has_code_that_is_tested() -> None:
    source = Path(__file__).read_text()
    assert [*RECIPES, "Imports"] == re.findall(r"(?m)^## (.+)$", PAGE)
    assert [title for title in RECIPES if f'recipe("{title}")' not in source] == []
    assert PAGE.count("```python") == len(RECIPES) + 1


async def test_a_setting_of_your_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    page = recipe("A setting of your own")
    monkeypatch.setenv("SHOP_CURRENCY", "CHF")
    with_shop = load_settings(page.Settings)

    def change(app: FastAPI) -> None:
        app.include_router(page.router)
        page.hand_on(app, with_shop)

    async with using(settings, change) as service, service.client() as client:
        assert (await client.get("/api/shop/currency")).json() == "CHF"


async def test_a_middleware_of_your_own(settings: Settings) -> None:
    page = recipe("A middleware of your own")

    def change(app: FastAPI) -> None:
        app.add_middleware(page.TenantMiddleware)

        @app.get("/tenant")
        async def tenant(request: Request) -> str:
            return str(request.state.tenant)

    async with using(settings, change) as service, service.client() as client:
        assert (await client.get("/tenant", headers={"Host": "quokka.example.com"})).json() == "quokka"


async def test_an_upload(settings: Settings, tmp_path: Path) -> None:
    page = recipe("An upload")
    page.put_picture.__globals__["FOLDER"] = tmp_path

    async def pieces(count: int, fail: bool = False) -> AsyncIterator[bytes]:
        for number in range(count):
            yield bytes([number]) * 2**20
        if fail:
            raise ConnectionError

    change = lambda app: app.include_router(page.router)  # noqa: E731
    async with using(settings, change) as service, served(service) as port:
        async with AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.put("/api/pictures/1", content=pieces(3))).status_code == 204
            assert sizes(tmp_path) == {"1.png": 3 * 2**20}
            assert (await client.put("/api/pictures/1", content=pieces(11))).status_code == 413
            with pytest.raises(ConnectionError):
                await client.put("/api/pictures/1", content=pieces(2, fail=True))
        while len(sizes(tmp_path)) > 1:  # noqa: ASYNC110 - until the server has noticed that the client left
            await asyncio.sleep(0.01)
    assert sizes(tmp_path) == {"1.png": 3 * 2**20}


def sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in folder.iterdir()}


async def test_a_websocket(settings: Settings) -> None:
    page = recipe("A WebSocket")
    received = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "Asia/Tokyo"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(received, {"type": "websocket.disconnect", "code": 1000})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/api/clock", "headers": [], "query_string": b"", "subprotocols": []}
    async with using(settings, lambda app: app.include_router(page.router)) as service:
        await service(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send"]
    assert sent[1]["text"].endswith("+09:00")


UPGRADE = "GET {} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + (
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize(("path", "status"), [("/api/clock", 501), ("/api/nothing", 404), ("/api/categories", 200)])
async def test_a_websocket_without_its_library_is_a_clear_error(
    settings: Settings, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    if status == 501 and importlib.util.find_spec("websockets") is not None:
        status = 101
    page = recipe("A WebSocket")
    async with using(settings, lambda app: app.include_router(page.router)) as service, served(service) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UPGRADE.format(path).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.close()
    assert head.split()[1] == str(status)
    assert ("the extra `websockets` has to be installed" in caplog.text) == (status == 501)


@pytest.fixture
async def database(service: Service, client: AsyncClient) -> Database:
    """With three products, of each of which 7 are left."""
    await RESOURCES.create_all(client, before="/api/orders")
    found: Database = service.state["database"]
    return found


async def test_a_background_task(settings: Settings, empty_tables: None, onlooker: asyncpg.Connection) -> None:
    page = recipe("A background task")
    other = FastAPI()
    committed: list[object] = []

    @other.post("/events")
    async def event(request: Request) -> None:
        id = (await request.json())["category"]
        committed.append(await onlooker.fetchval("SELECT name FROM categories WHERE id = $1", id))

    def add(app: FastAPI) -> None:
        app.include_router(page.router)

    async with served(other) as port, using(settings, add) as service, service.client() as client:
        page.count_signup.__globals__["ANALYTICS"] = f"http://127.0.0.1:{port}/events"
        assert (await client.post("/api/signups", json={"name": "Lamps"})).status_code == 201
        assert committed == ["Lamps"]
        page.count_signup.__globals__["ANALYTICS"] = "http://127.0.0.1:1/events"
        assert (await client.post("/api/signups", json={"name": "Desks"})).status_code == 201


async def test_lock_decide_write(database: Database, onlooker: asyncpg.Connection) -> None:
    page = recipe("Lock, decide, write")
    invalidated: list[Any] = []

    async def take(count: int, id: int = 1) -> object:
        try:
            async with database.sessions.begin() as session:
                service = page.StockService(ProductRepository(session), lambda *tags: invalidated.append(tags))
                return await service.take(id, count)
        except ConflictError as error:
            return str(error)

    left = await asyncio.gather(*(take(2) for _ in range(5)))
    assert sorted(left, key=str) == sorted([5, 3, 1, *["Only 1 of product 1 are left."] * 2], key=str)
    assert await onlooker.fetchval("SELECT stock FROM products WHERE id = 1") == 1
    assert len(invalidated) == 3
    with pytest.raises(NotFoundError):
        await take(1, id=99)


async def test_an_enum_column(
    database: Database, settings: Settings, onlooker: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model is declared on tables of its own: those of the app are emptied by other tests.
    spec = importlib.util.spec_from_file_location("recipe_base", ROOT / "app/models/base.py")
    assert spec is not None
    assert spec.loader is not None
    base = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(base)
    monkeypatch.setitem(sys.modules, "app.models.base", base)
    page = recipe("An enum column")
    engine = create_engine(settings.database, "recipes", Pulse(partial(asyncio.sleep, 0), 1.0))
    async with engine.begin() as connection:
        await connection.run_sync(base.Base.metadata.create_all)
    try:
        data = page.DeliveryCreate.model_validate({"placed_on": "2026-11-28", "status": "paid"})
        async with database.sessions.begin() as session:
            session.add(page.Delivery(**data.changes()))
        async with database.sessions.begin() as session:
            delivery = await session.get_one(page.Delivery, 1)
            assert (delivery.status, delivery.placed_on) == (page.DeliveryStatus.PAID, date(2026, 11, 28))
        assert await onlooker.fetchval("SELECT status::text FROM deliveries") == "paid"
        with pytest.raises(ValueError, match="This should be 'open' or 'paid'"):
            page.DeliveryCreate.model_validate({"placed_on": "2026-11-28", "status": "PAID"})
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(base.Base.metadata.drop_all)
        await engine.dispose()


async def test_a_plain_orm_query(database: Database) -> None:
    page = recipe("A plain ORM query")
    async with database.sessions.begin() as session:
        cheapest = await page.cheapest(session, "Name 1", 2)
        assert [(product.name, product.category.name) for product in cheapest] == [
            ("Laptop 1", "Name 1"),
            ("Laptop 2", "Name 1"),
        ]


async def test_a_call_to_another_service() -> None:
    page = recipe("A call to another service")
    other = FastAPI()

    @other.get("/rates/{currency}")
    async def rate(currency: str) -> object:
        if currency == "CHF":
            return {"rate": "0.94"}
        raise HTTPException(404 if currency == "XXX" else 500)

    async with served(other) as port, open_outgoing(OutgoingSettings()) as outgoing:
        rates = page.Rates(outgoing, f"http://127.0.0.1:{port}")
        assert await rates.get("CHF") == Decimal("0.94")
        with pytest.raises(NotFoundError):
            await rates.get("XXX")
        for broken in ("EUR", "../rates/CHF"):
            with pytest.raises((UnavailableError, NotFoundError)):
                await rates.get(broken)
        with pytest.raises(UnavailableError):
            await page.Rates(outgoing, "http://127.0.0.1:1").get("CHF")
