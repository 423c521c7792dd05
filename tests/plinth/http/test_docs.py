import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from plinth.errors import ConfigurationError
from plinth.http import add_docs
from tests.plinth.http.apps import build, client

ASSETS = f"/docs/{version('fastapi-swagger')}"


@pytest.fixture
def documented() -> FastAPI:
    app = build()
    app.title = "Nuts & <b>Bolts</b>"
    add_docs(app)
    return app


@pytest.fixture
async def asked(documented: FastAPI) -> AsyncIterator[AsyncClient]:
    async with client(documented) as session:
        yield session


async def test_the_page_loads_nothing_from_elsewhere(asked: AsyncClient) -> None:
    page = await asked.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        answer = await asked.get(str(page.url.join(address)))
        assert (answer.status_code, answer.url.host) == (200, "test")
        assert answer.content


async def test_the_page_works_behind_a_proxy_that_takes_a_prefix_off(asked: AsyncClient) -> None:
    addresses = re.findall(r'(?:src|href)="([^"]*)"', (await asked.get("/docs")).text)
    assert not [address for address in addresses if address.startswith(("/", "http"))]
    assert '"url":"openapi.json"' in (await asked.get("/docs/start.js")).text


async def test_the_policy_allows_what_is_served_here_and_no_inline_code(asked: AsyncClient) -> None:
    page = await asked.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\bstyle=|\bon\w+=", page.text)


async def test_the_title_is_escaped(asked: AsyncClient) -> None:
    assert "<title>Nuts &amp; &lt;b&gt;Bolts&lt;/b&gt;</title>" in (await asked.get("/docs")).text


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
async def test_an_asset_is_kept_by_the_browser(asked: AsyncClient, name: str, content_type: str) -> None:
    answer = await asked.get(f"{ASSETS}/{name}")
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers.get("Content-Encoding") == (None if name.endswith("png") else "gzip")


async def test_what_starts_the_page_is_asked_for_again(asked: AsyncClient) -> None:
    assert (await asked.get("/docs/start.js")).headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["__init__.py", "..%2Fmain.py", "nothing.js", "swagger-ui.css/x"])
async def test_nothing_else_is_served(asked: AsyncClient, name: str) -> None:
    answer = await asked.get(f"{ASSETS}/{name}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_the_docs_are_not_in_the_schema(documented: FastAPI) -> None:
    assert documented.openapi()["paths"] == {}


def test_without_the_extra_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        return None

    monkeypatch.setattr("plinth.http.docs.find_spec", nothing)
    with pytest.raises(ConfigurationError, match=r"install the `docs` extra, or set HTTP_DOCS=false"):
        add_docs(build())
