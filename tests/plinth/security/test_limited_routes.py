"""Which routes of the service are limited: all that sign in and all that write, but those that are named here."""

from app.enums import Role
from app.main import app
from app.settings import Settings
from plinth.testing.resources import write_routes
from tests.app.accounts import headers_of
from tests.app.resources import RESOURCES
from tests.plinth.security.test_limiting import limiting

# They end what the caller has, and cost less than to ask; a change of the password counts as an attempt to sign in.
OTHERWISE = {
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/password/change"),
}


async def test_every_route_that_signs_in_or_writes_is_limited(settings: Settings, empty_tables: None) -> None:
    async with (
        limiting(settings, {"auth": "1/31days", "writes": "1/31days"}) as service,
        service.client(headers_of(settings, Role.ADMIN)) as client,
    ):
        for path in ("/api/auth/login", "/api/categories"):
            assert (await client.post(path, json=[])).status_code == 422
        statuses = {
            (method, path): (await client.request(method, RESOURCES.request(method, path, 1)[0], json=[])).status_code
            for method, path in write_routes(app)
        }
    assert {route for route, status in statuses.items() if status != 429} == OTHERWISE
