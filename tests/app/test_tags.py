"""Every tag that a cached response shows is invalidated by a service."""

import ast
from pathlib import Path

import pytest

from app import tags
from app.main import create_app
from app.settings import Settings
from plinth.cache import CachedRoutes, Tag

SERVICES = Path(__file__).resolve().parents[2] / "app" / "services"
DECLARED = {name: tag for name, tag in vars(tags).items() if isinstance(tag, Tag)}


def names_in(*nodes: ast.AST) -> set[str]:
    """The X of each `tags.X`."""
    attributes = [each for node in nodes for each in ast.walk(node) if isinstance(each, ast.Attribute)]
    return {attribute.attr for attribute in attributes if ast.unparse(attribute.value) == "tags"}


def shown_and_invalidated_by_services() -> tuple[set[str], set[str]]:
    """The tags in `tags=[…]`, as of `cache.remember`, and those in calls of `self._invalidate`."""
    shown, invalidated = set[str](), set[str]()
    for path in SERVICES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="tags", value=value):
                    shown |= names_in(value)
                case ast.Call(func=ast.Attribute(attr="_invalidate"), args=arguments):
                    invalidated |= names_in(*arguments)
    return shown, invalidated


@pytest.fixture(scope="module")
def shown_by_routes(settings: Settings) -> set[Tag]:
    routes = CachedRoutes()
    routes.add_all_of(create_app(settings))
    return routes.tags


def test_every_tag_that_is_shown_is_declared(shown_by_routes: set[Tag]) -> None:
    assert shown_by_routes <= {*DECLARED.values()}, "declare it in app/tags.py"


def test_every_tag_that_is_shown_is_invalidated_and_no_other(shown_by_routes: set[Tag]) -> None:
    shown, invalidated = shown_and_invalidated_by_services()
    shown |= {name for name, tag in DECLARED.items() if tag in shown_by_routes}
    assert shown - invalidated == set(), "values depend on it, but no service calls self._invalidate(tags.…)"
    assert invalidated - shown == set(), "invalidated, but nothing is cached with this tag"
    assert invalidated == DECLARED.keys(), "declared in app/tags.py, but not used"
