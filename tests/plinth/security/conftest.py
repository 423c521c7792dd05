"""Whether a route is on the fast path."""

from tests.plinth.http.conftest import solved_by_fastapi

__all__ = ["solved_by_fastapi"]
