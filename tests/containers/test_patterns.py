"""Imports, images, streams of events and exports, through Nginx and with three replicas that are replaced."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from http.client import HTTPResponse, IncompleteRead

import pytest

from tests.containers.edge import ask, connected, posted
from tests.containers.support import Compose, attempt, eventually

REPLICAS = ["api-1", "api-2", "api-3"]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8_000  # 2 MB, of which the first bytes say what it is
ROWS = 15_000  # more than an import without a job has
DESCRIPTION = "Shines. " * 240
# 200 MB, which compress well: more than the sockets between a client and PostgreSQL hold, each of which may grow to 32.
LONG = """
    WITH added AS (
        INSERT INTO products (sku, name, description, price, stock, category_id)
        SELECT 'LONG-' || number, 'Long', repeat(repeat('1', 1000) || ' ', 20), 1, 1, (SELECT max(id) FROM categories)
        FROM generate_series(1, 10000) AS number RETURNING 1
    ) SELECT count(*) FROM added
"""
EXPORT = "/api/products/export?format=ndjson"
# Without the parallel workers, which have the query of their leader.
EXPORTS = "FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active' AND backend_type = 'client backend'"
RUNNING = f"SELECT count(*) {EXPORTS}"
ENDED = f"SELECT count(pg_terminate_backend(pid)) {EXPORTS}"


@pytest.fixture(scope="module")
def headers(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization}


@pytest.fixture(scope="module")
def category(production: Compose, authorization: str) -> int:
    return int(posted(production, 201, "/api/categories", {"name": "Many", "description": ""}, authorization)["id"])


@pytest.fixture(scope="module")
def product(production: Compose, authorization: str, category: int) -> int:
    body = {"sku": "PAT-1", "name": "Lamp", "price": "9.99", "stock": 100, "category_id": category}
    return int(posted(production, 201, "/api/products", body, authorization)["id"])


@pytest.fixture(scope="module")
def imported(production: Compose, headers: dict[str, str], category: int) -> None:
    row = {"name": "One of many", "description": DESCRIPTION, "price": "9.99", "stock": 1, "category_id": category}
    body = "\n".join(json.dumps({"sku": f"BULK-{number}", **row}) for number in range(ROWS)).encode()
    kind = {"Content-Type": "application/x-ndjson"}
    status, answered, text = ask(production, "POST", "/api/products/bulk", body, headers | kind)
    assert status == 202, text

    def state() -> dict[str, object]:
        return dict(json.loads(ask(production, "GET", answered["location"], None, headers)[2]))

    eventually(lambda: state()["state"] != "running", "the import has ended")
    ended = state()
    assert (ended["state"], ended["done"]) == ("done", ROWS), ended


@contextmanager
def opened(production: Compose, path: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
    with closing(connected(production)) as connection:
        connection.request("GET", path, None, headers)
        response = connection.getresponse()
        assert response.status == 200
        yield response


def at(production: Compose, replica: str, path: str, options: str = "") -> str:
    """Send a request to one replica, as Nginx does. Returns the hash of the body."""
    curl = "curl --silent --fail --header 'X-Forwarded-Proto: https' --header 'Host: api.test'"
    command = f"set -o pipefail; {curl} {options} http://{replica}:8000{path} | sha256sum"
    return production.inside("nginx", "bash", "-c", command).split()[0]


def sql(production: Compose, statement: str) -> int:
    return int(production.inside("postgres", "psql", "--username=service", "--tuples-only", "--command", statement))


def test_an_import_of_many_megabytes_is_stored(production: Compose, imported: None) -> None:
    assert sql(production, "SELECT count(*) FROM products WHERE sku LIKE 'BULK-%'") == ROWS


def test_large_bodies_are_kept_on_the_disk(production: Compose) -> None:
    """In memory they would count against the limits of the containers."""
    for service in ("nginx", *REPLICAS):
        assert production.inside(service, "stat", "--file-system", "--format=%T", "/var/tmp") != "tmpfs"
    find = "import tempfile; print(tempfile.gettempdir())"
    assert {production.inside(replica, "python", "-c", find) for replica in REPLICAS} == {"/var/tmp"}


def test_an_image_is_at_every_replica_and_outlives_one(
    production: Compose, headers: dict[str, str], product: int
) -> None:
    path = f"/api/products/{product}/image"
    status, stored, text = ask(production, "PUT", path, PNG, headers | {"Content-Type": "image/png"})
    assert status == 201, text
    production("up", "--detach", "--no-deps", "--force-recreate", "--wait", "api-1")
    assert {at(production, replica, path) for replica in REPLICAS} == {sha256(PNG).hexdigest()}
    status, shown, some = ask(production, "GET", path, None, {"Range": "bytes=0-7"})
    assert (status, some, shown["etag"]) == (206, PNG[:8], stored["etag"])
    assert ask(production, "DELETE", path, None, headers)[0] == 204
    assert ask(production, "GET", path)[0] == 404


def test_events_of_all_replicas_arrive_and_a_stream_ends_with_its_replica(
    production: Compose, headers: dict[str, str], product: int
) -> None:
    """At once and as if it were complete: what is still open later than that is cut off."""
    order = json.dumps({"lines": [{"product_id": product, "quantity": 1}]})
    options = f"--header 'Content-Type: application/json' --header 'Authorization: {headers['Authorization']}'"
    with ExitStack() as stack:
        streams = [stack.enter_context(opened(production, "/api/orders/events", headers)) for _ in range(6)]
        for replica in REPLICAS:
            at(production, replica, "/api/orders", f"{options} --data '{order}'")
        for stream in streams:
            events = 0
            while events < len(REPLICAS):
                events += stream.readline().startswith(b'data: {"order_id"')
        roll = ["sh", "docker/roll.sh", f"--project-name={production.name}", *production.options]
        code, output = attempt(roll, production.folder, production.environ)
        assert code == 0, output
        for stream in streams:
            stream.read()  # raises IncompleteRead where it was cut off


def test_an_export_is_sent_while_it_runs_and_breaks_off_visibly(
    production: Compose, headers: dict[str, str], imported: None
) -> None:
    added = sql(production, LONG)
    with opened(production, EXPORT, headers) as export:
        assert json.loads(export.readline())["sku"]
        assert sql(production, RUNNING) == 1  # as it is as long as nothing more is read
        assert sql(production, ENDED) == 1
        with pytest.raises(IncompleteRead):
            export.read()
    with opened(production, EXPORT, headers) as export:
        assert sum(1 for _ in export) >= ROWS + added
