"""Every route and mount says who may call it, even where everyone may."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount, Route

from app.main import create_app
from plinth.security.principals import accesses

# The pages that describe the API are Starlette's routes, which take no dependency. They are public.
DESCRIPTION = ("/openapi.json", "/docs")


def routes() -> Iterator[Any]:
    return iter_route_contexts(create_app().routes)


def test_every_route_and_mount_says_who_may_call_it() -> None:
    unlabelled = []
    for route in routes():
        kind = type(route.original_route)
        if isinstance(route.original_route, APIRoute):
            labelled = [*accesses(route)] != []
        else:
            labelled = kind is Route and str(route.path).startswith(DESCRIPTION)
        if not labelled:
            unlabelled.append(f"{kind.__name__} {route.path}")
    assert not unlabelled, "add PUBLIC or one of app/access.py's MAY_… to its `dependencies`"


def test_a_route_or_mount_without_a_label_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = create_app()
    unlabelled.router.routes.append(Mount("/files", app=unlabelled))
    monkeypatch.setattr("tests.app.test_labels.create_app", lambda: unlabelled)
    with pytest.raises(AssertionError, match="Mount /files"):
        test_every_route_and_mount_says_who_may_call_it()
