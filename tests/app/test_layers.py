"""A resource is one file in each layer, with one name, and is registered. This finds what was forgotten."""

from pathlib import Path

import pytest

from app import routers
from app.models import Base

ROOT = Path(__file__).resolve().parents[2]
RESOURCES = sorted(path.stem for path in (ROOT / "app/models").glob("*.py") if path.stem not in {"__init__", "base"})


@pytest.mark.parametrize("layer", ["repositories", "schemas", "services", "routers"])
@pytest.mark.parametrize("resource", RESOURCES)
def test_a_resource_has_a_file_in_every_layer(resource: str, layer: str) -> None:
    path = f"app/{layer}/{resource}.py"
    assert (ROOT / path).is_file(), f"write {path}"


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_resource_has_its_tests(resource: str) -> None:
    path = f"tests/app/routers/test_{resource}.py"
    assert (ROOT / path).is_file(), f"write {path}"


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_model_is_registered(resource: str) -> None:
    modules = {mapper.class_.__module__ for mapper in Base.registry.mappers}
    assert f"app.models.{resource}" in modules, "import it in app/models/__init__.py"


@pytest.mark.parametrize("path", sorted((ROOT / "app/routers").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_a_router_is_registered(path: Path) -> None:
    module = getattr(routers, path.stem, None)
    assert module is not None, "import it in app/routers/__init__.py"
    assert module.router in routers.ROUTERS, "add it to ROUTERS in app/routers/__init__.py"


def test_a_relationship_never_loads_by_itself() -> None:
    loading = {str(relation): relation.lazy for mapper in Base.registry.mappers for relation in mapper.relationships}
    assert set(loading.values()) <= {"raise"}, loading
