"""Every panel of the dashboard has data: a real Prometheus reads the service and its worker while both are used."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import yaml
from httpx import AsyncClient, Limits

from app.enums import Role
from plinth.testing.environment import child_environment
from plinth.testing.network import reserved_port
from tests.app.accounts import PASSWORD, add_accounts, email_of
from tests.faults.serving import Serve
from tests.faults.workers import print_log
from tests.observability.prometheus import FOLDER, Prometheus, scraping

ROUNDS = 12  # of load, by which each panel has data; two are enough where none is early
BLOCKED = 100  # each process has a connection for one of them
CONNECTIONS, REQUESTS_OF_EACH = 2000, 10  # many times what is answered in time, and for longer than a burst lasts
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
VARIABLES = {"$__rate_interval": "10s", "$instance": ".*", "$route": ".*"}
SETTINGS = {
    "APP_SECRET_KEY": "k" * 32,
    "DATABASE_POOL_SIZE": "1",
    "DATABASE_READ_POOL_SIZE": "1",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "4",
    "LIMIT_AUTH": "5/minute",
    "MAIL_BACKEND": "file",
}


def queries() -> dict[str, tuple[str, str]]:
    """Each query of the dashboard, with what Grafana puts into its place, and its legend."""
    found = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found[f"{panel['title']} {target['refId']} {panel['id']}"] = expression, target["legendFormat"]
    return found


@contextmanager
def working(folder: Path, **environment: str) -> Iterator[None]:
    """The worker of the service, which needs no time to start before jobs are enqueued."""
    with (folder / "worker.log").open("wb") as log:
        argv = [sys.executable, "-m", "app", "worker"]
        process = subprocess.Popen(argv, cwd=folder, env=child_environment(**environment), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            print_log(folder / "worker.log")


async def add_jobs(onlooker: asyncpg.Connection) -> None:
    """One that fails for good, since its payload does not fit, and one of a queue that no worker takes from."""
    for name, queue in (("order_mail", "default"), ("none", "none")):
        await onlooker.execute(
            "INSERT INTO plinth_jobs (id, name, queue, payload) VALUES ($1, $2, $3, '{}')", uuid4(), name, queue
        )


async def apply_load(client: AsyncClient, onlooker: asyncpg.Connection, headers: dict[str, str]) -> list[int]:
    """Use all that has a metric once, or several times, and return the statuses of the responses."""
    await add_jobs(onlooker)
    requests = [client.get(path) for path in ("/api/products", "/api/categories/1", "/api/products/facets") * 5]
    requests += [client.get(path) for path in ("/nowhere", "/api/products/999999", "/health/ready")]
    requests += [client.post("/api/categories", json={"name": str(uuid4())}, headers=headers) for _ in range(5)]
    requests += [client.post("/api/reports/prices", headers=headers)]
    wrong = {"email": "nobody@example.com", "password": "none-of-theirs"}
    requests += [client.post("/api/auth/login", json=wrong) for _ in range(6)]
    statuses = [response.status_code for response in await asyncio.gather(*requests)]
    # Two of these keep the connections, since their table is locked; the others wait for one until they are refused.
    transaction = onlooker.transaction()
    await transaction.start()
    await onlooker.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
    blocked = await asyncio.gather(*(client.get(f"/api/products/search?q={uuid4()}") for _ in range(BLOCKED)))
    await transaction.rollback()
    return statuses + [response.status_code for response in blocked]


async def overload(port: int) -> int:
    """Send more than the processes can answer, for longer than a burst, and return how many requests were refused.

    Each connection sends its requests at once, and they are answered one after the other, so that there are always as
    many as connections, and sending them takes none of the time of the processes.
    """
    request = b"GET /api/products/search?q=%d HTTP/1.1\r\nHost: service\r\n"

    async def refused(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines(request % (number + each) + b"\r\n" for each in range(REQUESTS_OF_EACH - 1))
        writer.write(request % number + b"Connection: close\r\n\r\n")
        answers = await reader.read()
        writer.close()
        return answers.count(b"The service is overloaded.")

    return sum(await asyncio.gather(*(refused(REQUESTS_OF_EACH * number) for number in range(CONNECTIONS))))


@pytest.fixture
async def onlooker(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await add_accounts(connection)
    yield connection
    await connection.close()


async def without_data(prometheus: Prometheus) -> dict[str, Any]:
    """The panels that show nothing, or nothing but zeros, and why; a legend must not name a label that is not there."""
    missing: dict[str, Any] = {}
    for name, (expression, legend) in queries().items():
        series = await prometheus.values(expression)
        labels = set(re.findall(r"{{(\w+)}}", legend))
        if not any(value != 0 and isfinite(value) for _, values in series for value in values):
            missing[name] = expression
        elif not all(labels <= metric.keys() for metric, _ in series):
            missing[name] = legend
    return missing


async def test_every_panel_has_data_and_every_rule_a_value(
    serve: Serve, onlooker: asyncpg.Connection, database_url: str, tmp_path: Path
) -> None:
    with (
        reserved_port() as service_port,
        reserved_port() as worker_port,
        serve(workers=2, METRICS_PORT=str(service_port), **SETTINGS) as server,
        working(tmp_path, DATABASE_URL=database_url, METRICS_PORT=str(worker_port), JOB_QUEUES="default", **SETTINGS),
    ):
        async with (
            scraping(tmp_path, {"service": service_port, "worker": worker_port}) as prometheus,
            AsyncClient(base_url=server.address, timeout=30, limits=Limits(max_connections=None)) as client,
        ):
            credentials = {"email": email_of(Role.ADMIN), "password": PASSWORD}
            token = (await client.post("/api/auth/login", json=credentials)).json()["access_token"]
            seen: set[int] = set()
            for _ in range(ROUNDS):
                seen |= set(await apply_load(client, onlooker, {"Authorization": f"Bearer {token}"}))
                assert await overload(urlsplit(server.address).port or 0)
                if not (missing := await without_data(prometheus)):
                    break
            assert missing == {}
            assert seen >= {200, 201, 202, 404, 401, 429, 503}
            assert {(metric["job"], max(values)) for metric, values in await prometheus.values("up")} == {
                ("service", 1),
                ("worker", 1),
            }
            for rule in RULES:
                series = await prometheus.values(rule["expr"])
                assert "alert" in rule or any(isfinite(value) for _, values in series for value in values), rule
