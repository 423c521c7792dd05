"""The API conforms to its own OpenAPI document, for requests that Schemathesis generates."""

import json
import re
from typing import Any

import schemathesis
from anyio import to_thread
from schemathesis import Response, engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import NonFatalError, ScenarioFinished
from schemathesis.python.asgi import shutdown_lifespans

from app.enums import Role
from app.main import app, create_app
from app.settings import Settings
from plinth.testing.resources import write_routes
from tests.app.accounts import headers_of
from tools.openapi import RECORD, document

NOTHING = re.compile(
    rb'"This \w+ refers to something that does not exist\."'
    rb'|"This sku is already taken\."|"This sku is in a row before\."'
    rb'|"This Idempotency-Key was sent with another'
    rb'|"Another line has this product\.'
    rb'|"This link is not valid or has expired\.|"This is not the password of the account\.'
    rb'|"This password is one of the first to be guessed\.|"You may not do this yourself:'
    rb'|"This instant has passed\.'
)
# It does not end, which a client in this process waits for.
STREAM = "/api/orders/events"
# No schema can say which versions exist, or who has signed in too often.
ACCEPTED = ["2xx", "401", "403", "404", "409", "412", "429", "5xx"]
CONFIG = {
    "seed": 20261121,
    "continue-on-failure": True,
    "generation": {"max-examples": 10, "deterministic": True, "database": "none"},
    "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
}


@schemathesis.hook
def before_load_schema(_context: Any, document: dict[str, Any]) -> None:
    # No schema can say what CSV or NDJSON is, which are documented as text.
    # No schema can say which cursors exist: they are tested by what the service itself returned.
    for path in document["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            for kind in [kind for kind, body in content.items() if body["schema"] == {"type": "string"}]:
                del content[kind]
            operation["parameters"] = [one for one in operation.get("parameters", []) if one["name"] != "cursor"]
            for one in operation["parameters"]:
                if one["name"] == "If-Match":  # Schemathesis has a generator of its own, which makes invalid ones
                    one["schema"] = {"enum": ["*", '"1.a"', '"2"', 'W/"3.a", "1"', '"other"']}


def broken_promises(settings: Settings) -> tuple[set[str], set[str], set[str]]:
    """What failed, the phases and checks that ran. The app runs in its lifespan, on a loop of Schemathesis's own."""
    failures: set[str] = set()
    phases: set[str] = set()
    ran: set[str] = set()
    config = SchemathesisConfig.from_dict({**CONFIG, "headers": headers_of(settings, Role.ADMIN)})
    document = schemathesis.openapi.from_asgi("/openapi.json", create_app(settings), config=config)
    for event in engine.from_schema(document.exclude(func=ends_the_session).exclude(path=STREAM)).execute():
        assert not isinstance(event, NonFatalError), event.info
        if isinstance(event, ScenarioFinished):
            phases.add(event.phase.value)
            ran.update(check.name for checks in event.recorder.checks.values() for check in checks)
            for case, check in ((case, check) for case, checks in event.recorder.checks.items() for check in checks):
                if (found := check.failure_info) and not refers_to_nothing(event.recorder.interactions[case].response):
                    failures.add(f"{found.failure.title}\n{found.failure.message}\n{found.code_sample}")
    shutdown_lifespans()
    return failures, phases, ran


def ends_the_session(context: Any) -> bool:
    """All requests after one of these would be refused, and show nothing."""
    path, method = str(context.operation.path), context.operation.method.upper()
    return path == "/api/auth/logout" or (method == "DELETE" and path.startswith("/api/users/me"))


def refers_to_nothing(response: Response | None) -> bool:
    """No schema can say which rows exist, and which keys were sent before, either."""
    return response is not None and response.status_code == 422 and NOTHING.search(response.content) is not None


async def test_every_promise_of_the_document_is_kept(settings: Settings, empty_tables: None) -> None:
    failures, phases, ran = await to_thread.run_sync(broken_promises, settings)
    assert not failures, "\n\n".join(sorted(failures))
    assert phases >= {"coverage", "fuzzing"} | ({"examples", "stateful"} if write_routes(app) else set())
    assert "ignored_auth" in ran or "securitySchemes" not in document()["components"]


def test_openapi_json_is_the_document_of_the_api() -> None:
    assert json.loads(RECORD.read_text()) == document(), "record the API: make openapi-check"
