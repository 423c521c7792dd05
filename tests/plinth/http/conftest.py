import fastapi.routing
import pytest


@pytest.fixture
def solved_by_fastapi(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that FastAPI's own handler served: on the fast path, nothing calls this function."""
    paths: list[str] = []
    original = vars(fastapi.routing)["solve_dependencies"]

    async def solve_dependencies(**arguments: object) -> object:
        paths.append(arguments["request"].scope["path"])  # type: ignore[attr-defined]
        return await original(**arguments)

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", solve_dependencies)
    return paths
