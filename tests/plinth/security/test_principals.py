"""Who may call a route: that it is checked, shown and found, wherever it is declared."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import OAuth2PasswordBearer

from plinth.errors import UnauthenticatedError
from plinth.http import FastRoute, exception_handlers
from plinth.http.dependants import plan_for
from plinth.security import PUBLIC, Principal, requires
from plinth.security.principals import accesses
from tests.plinth.http.apps import client

bearer = OAuth2PasswordBearer("token", auto_error=False, scopes={"things:read": "", "things:write": ""})


async def get_principal(request: Request, token: Annotated[str | None, Depends(bearer)]) -> Principal:
    """The scopes are the token."""
    request.app.state.calls += 1
    if token is None:
        raise UnauthenticatedError
    return Principal("user", "7", frozenset(token.split("+")))


PrincipalDep = Annotated[Principal, requires(get_principal)]
ReaderDep = Annotated[Principal, requires(get_principal, "things:read")]
WriterDep = Annotated[Principal, requires(get_principal, "things:write")]


async def get_thing(principal: WriterDep) -> str:
    return principal.name


async def endpoint() -> str:
    return "done"


async def named(principal: ReaderDep) -> str:
    return principal.name


async def anyone(principal: PrincipalDep) -> str:
    return principal.name


async def nested(thing: Annotated[str, Depends(get_thing)]) -> str:
    return thing


def app_of(route_class: type[APIRoute]) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers)
    app.state.calls = 0
    router = APIRouter(route_class=route_class)
    router.get("/unlabelled")(endpoint)
    router.get("/public", dependencies=[PUBLIC])(endpoint)
    router.get("/anyone")(anyone)
    router.get("/named")(named)
    router.get("/nested")(nested)
    router.get("/decorated", dependencies=[requires(get_principal, "things:read")])(endpoint)
    inner = APIRouter(prefix="/inner", route_class=route_class, dependencies=[requires(get_principal, "things:read")])
    inner.get("")(endpoint)
    inner.get("/both")(nested)
    middle = APIRouter(prefix="/middle")
    middle.include_router(inner)
    app.include_router(router)
    app.include_router(middle)
    app.include_router(inner, prefix="/included", dependencies=[requires(get_principal, "things:write")])
    return app


ACCESSES = {
    "/unlabelled": [],
    "/public": ["public"],
    "/anyone": [""],
    "/named": ["things:read"],
    "/nested": ["things:write"],
    "/decorated": ["things:read"],
    "/middle/inner": ["things:read"],
    "/middle/inner/both": ["things:read", "things:write"],
    "/included/inner": ["things:write", "things:read"],
    "/included/inner/both": ["things:write", "things:read", "things:write"],
}
CLASSES = [FastRoute, APIRoute]


@pytest.mark.parametrize("route_class", CLASSES)
def test_labels_are_found_wherever_they_are(route_class: type[APIRoute]) -> None:
    contexts = [each for each in iter_route_contexts(app_of(route_class).routes) if hasattr(each, "dependant")]
    assert {str(each.path): [*accesses(each)] for each in contexts} == ACCESSES


@pytest.mark.parametrize("route_class", CLASSES)
@pytest.mark.parametrize("path", ACCESSES)
async def test_what_is_labelled_is_checked(route_class: type[APIRoute], path: str) -> None:
    needed = {*ACCESSES[path]} - {"public", ""}
    closed = {*ACCESSES[path]} - {"public"}
    async with client(app_of(route_class)) as to:
        for token in (None, "other", "things:read", "things:write", "things:read+things:write"):
            answer = await to.get(path, headers={"Authorization": f"Bearer {token}"} if token else {})
            if closed and token is None:
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            elif needed <= {*(token or "").split("+")}:
                assert answer.status_code == 200, answer.text
            else:
                assert answer.status_code == 403
                missing = [scope for scope in ACCESSES[path] if scope and scope not in (token or "").split("+")]
                assert answer.headers["WWW-Authenticate"] == f'Bearer error="insufficient_scope", scope="{missing[0]}"'


def test_such_routes_stay_on_the_fast_path() -> None:
    contexts: list[Any] = [*iter_route_contexts(app_of(FastRoute).routes)]
    plans = {context.path: plan_for(context) for context in contexts if context.path in ACCESSES}
    assert len(plans) == len(ACCESSES)
    assert None not in plans.values()


@pytest.mark.parametrize("route_class", CLASSES)
async def test_the_credentials_are_verified_once_for_an_alias(route_class: type[APIRoute]) -> None:
    app = app_of(route_class)
    async with client(app) as to:
        assert (await to.get("/named", headers={"Authorization": "Bearer things:read"})).json() == "user:7"
    assert app.state.calls == 1


def test_the_document_shows_the_scopes() -> None:
    paths = app_of(FastRoute).openapi()["paths"]
    shown = {path: paths[path]["get"].get("security") for path in paths}
    name = "OAuth2PasswordBearer"
    assert shown["/unlabelled"] is shown["/public"] is None
    assert shown["/anyone"] == [{name: []}]
    assert shown["/named"] == shown["/decorated"] == shown["/middle/inner"] == [{name: ["things:read"]}]
    assert shown["/nested"] == [{name: ["things:write"]}]
    assert {*shown["/included/inner"][0][name]} == {"things:read", "things:write"}


def test_names_of_principals_are_distinct() -> None:
    names = {Principal(kind, id, frozenset()).name for kind in ("user", "key", "issuer") for id in ("7", "8")}
    assert len(names) == 6
