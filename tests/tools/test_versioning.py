"""docs/plinth/versioning.md is true: its code runs in the real app, and its output is what is printed."""

import json
import re
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import BaseModel

from app import tags
from app.dependencies import PathId, ProductReaderDep
from app.enums import Role
from app.main import create_app
from app.settings import Settings
from plinth.cache import cached_response
from plinth.http import FastRoute, deprecated_route, problem_responses
from plinth.http.docs import openapi
from plinth.testing.client import serve
from tests.app.accounts import headers_of
from tests.app.factories import create_category, create_product
from tests.tools.support import ROOT
from tools import openapi as check

PAGE = (ROOT / "docs/plinth/versioning.md").read_text()


class Availability(BaseModel):
    stock: int


def routers() -> list[APIRouter]:
    """What the two pieces of code define."""
    names: dict[str, Any] = {
        "__name__": "versioning",
        **{each.__name__: each for each in (Availability, APIRouter, BaseModel, Decimal, FastRoute, date)},
        **{each.__name__: each for each in (cached_response, deprecated_route, problem_responses)},
        "PathId": PathId,
        "ProductReaderDep": ProductReaderDep,
        "tags": tags,
    }
    found = []
    for code in re.findall(r"(?ms)^```python\n(.*?)^```", PAGE):
        names["router"] = APIRouter(prefix="/api/products", route_class=FastRoute)
        exec(compile(code, "docs/plinth/versioning.md", "exec", dont_inherit=True), names)
        found.append(names["router"])
    return found


async def test_the_code_does_what_it_says(settings: Settings, empty_tables: None) -> None:
    app = create_app(settings)
    deprecated, second = routers()
    for router in (deprecated, second):
        app.include_router(router)
    async with serve(app) as service, service.client(headers_of(settings, Role.ADMIN)) as client:
        product = await create_product(client, (await create_category(client))["id"], price="12.00", stock=7)
        response = await client.get(f"/api/products/{product['id']}/availability")
        assert response.json() == {"stock": 7}
        for name, value in re.findall(r"(?m)^(Deprecation|Sunset|Link): (.*)$", PAGE):
            assert response.headers[name] == value
        answer = (await client.get(f"/api/v2/products/{product['id']}")).json()
        assert answer == {"id": product["id"], "name": product["name"], "price": {"value": "12.00", "currency": "EUR"}}
        await client.patch(f"/api/products/{product['id']}", json={"name": "Renamed"})
        assert (await client.get(f"/api/v2/products/{product['id']}")).json()["name"] == "Renamed"
    operation = openapi(app)["paths"]["/api/products/{id}/availability"]["get"]
    assert (operation["deprecated"], operation["x-sunset"]) == (True, "2027-07-01")


def test_the_output_is_what_is_printed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = check.document()
    record = tmp_path / "openapi.json"
    record.write_text(json.dumps(document))
    del document["components"]["schemas"]["CategoryFacet"]["properties"]["products"]
    monkeypatch.setattr(check, "RECORD", record)
    monkeypatch.setattr(check, "document", lambda: document)
    assert check.main([]) == 1
    assert f"$ make openapi-check\n{capsys.readouterr().err}```" in PAGE
