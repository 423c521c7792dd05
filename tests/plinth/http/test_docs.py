"""The docs page: complete without the internet, under a strict policy, behind any prefix."""

import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from plinth.errors import ConfigurationError
from plinth.http import add_docs
from plinth.http.docs import openapi
from tests.plinth.http.apps import build, client

ASSETS = f"/docs/{version('fastapi-swagger')}"


@pytest.fixture
def documented() -> FastAPI:
    app = build()
    app.title = "Nuts & <b>Bolts</b>"
    add_docs(app)
    return app


@pytest.fixture
async def docs(documented: FastAPI) -> AsyncIterator[AsyncClient]:
    async with client(documented) as session:
        yield session


async def test_the_page_loads_nothing_from_other_servers(docs: AsyncClient) -> None:
    page = await docs.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    urls = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(urls) == 4
    for url in urls:
        response = await docs.get(str(page.url.join(url)))
        assert (response.status_code, response.url.host) == (200, "test")
        assert response.content


async def test_the_page_works_behind_a_proxy_that_strips_a_prefix(docs: AsyncClient) -> None:
    urls = re.findall(r'(?:src|href)="([^"]*)"', (await docs.get("/docs")).text)
    assert not [url for url in urls if url.startswith(("/", "http"))]
    assert 'url: "openapi.json"' in (await docs.get("/docs/start.js")).text


async def test_the_policy_allows_same_origin_and_no_inline_code(docs: AsyncClient) -> None:
    page = await docs.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\bstyle=|\bon\w+=", page.text)


async def test_the_title_is_escaped(docs: AsyncClient) -> None:
    assert "<title>Nuts &amp; &lt;b&gt;Bolts&lt;/b&gt;</title>" in (await docs.get("/docs")).text


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui.css", "text/css; charset=utf-8"),
        ("favicon-32x32.png", "image/png"),
    ],
)
async def test_an_asset_is_cached_forever(docs: AsyncClient, name: str, content_type: str) -> None:
    response = await docs.get(f"{ASSETS}/{name}")
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers.get("Content-Encoding") == (None if name.endswith("png") else "gzip")


async def test_the_start_script_is_revalidated(docs: AsyncClient) -> None:
    assert (await docs.get("/docs/start.js")).headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["__init__.py", "..%2Fmain.py", "nothing.js", "swagger-ui.css/x"])
async def test_other_files_are_not_served(docs: AsyncClient, name: str) -> None:
    response = await docs.get(f"{ASSETS}/{name}")
    assert (response.status_code, response.headers["Content-Type"]) == (404, "application/problem+json")


def test_the_docs_are_not_in_the_document(documented: FastAPI) -> None:
    assert openapi(documented)["paths"] == {}


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        return None

    monkeypatch.setattr("plinth.http.docs.find_spec", nothing)
    with pytest.raises(ConfigurationError, match=r"install the `docs` extra, or set HTTP_DOCS=false"):
        add_docs(build())
