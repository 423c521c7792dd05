"""Nginx and three replicas from the production files: requests, confinement, replacement, killed servers."""

import json
import zlib
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.containers.edge import ask, posted, read
from tests.containers.load import under_load
from tests.containers.support import CONFINED, Compose, attempt, docker, eventually

REPLICAS = ["api-1", "api-2", "api-3"]
REQUESTS_DURING_REPLACEMENT = 20_000


@pytest.fixture(scope="module")
def product(production: Compose, authorization: str) -> int:
    category = {"name": "Lamps", "description": "They shine. " * 100}
    category_id = posted(production, 201, "/api/categories", category, authorization)["id"]
    body = {"sku": "LAM-1", "name": "Lamp", "description": "Shines. " * 250, "price": "9.99", "stock": 1}
    return int(posted(production, 201, "/api/products", body | {"category_id": category_id}, authorization)["id"])


def test_http_is_redirected_to_https(production: Compose) -> None:
    with closing(HTTPConnection("127.0.0.1", int(production.environ["EDGE_HTTP_PORT"]), timeout=10)) as connection:
        connection.request("POST", "/api/products?limit=1", "{}", {"Host": "api.test"})
        status, headers, _ = read(connection.getresponse())
    port = production.environ["EDGE_HTTPS_PORT"]
    assert (status, headers["location"]) == (308, f"https://api.test:{port}/api/products?limit=1")


def test_http2_is_supported_and_tls_before_12_is_not(production: Compose) -> None:
    curl = ["curl", "--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]
    address = "https://127.0.0.1:8443/health/live"
    assert production.inside("nginx", *curl, "--http2", address) == "2 200"
    old = ["--ciphers", "DEFAULT@SECLEVEL=0", "--tlsv1.0", "--tls-max", "1.1"]
    code, said = production.attempt("exec", "--no-TTY", "nginx", *curl, *old, address)
    assert (code, said) == (35, "0 000")  # no handshake


def test_the_app_trusts_forwarded_https_from_the_proxy_only(production: Compose, product: int) -> None:
    assert ask(production, "GET", f"/api/products/{product}")[1]["strict-transport-security"]
    # Another container of the network sends the same header and is redirected.
    claim = (
        "import http.client as h; c = h.HTTPConnection('api-1', 8000); "
        "c.request('GET', '/api/products', headers={'X-Forwarded-Proto': 'https', 'X-Forwarded-For': '192.0.2.1'}); "
        "print(c.getresponse().status)"
    )
    assert production.inside("api-2", "python", "-c", claim) == "308"
    client = production("logs", "--no-log-prefix", "--no-color", *REPLICAS)
    assert "192.0.2.1" not in client


def test_an_answer_is_compressed_once(production: Compose, product: int) -> None:
    status, headers, body = ask(production, "GET", f"/api/products/{product}", headers={"Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
    assert json.loads(zlib.decompress(body, 16 + zlib.MAX_WBITS))["id"] == product


def test_the_docs_assets_come_from_nginx(production: Compose) -> None:
    [release] = production.inside("nginx", "ls", "/static/docs").split()
    for name, kind in {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "application/javascript"}.items():
        path = f"/docs/{release}/{name}"
        status, headers, body = ask(production, "GET", path, headers={"Accept-Encoding": "gzip"})
        assert (status, headers["content-type"], headers["content-encoding"]) == (200, kind, "gzip")
        assert "immutable" in headers["cache-control"]
        assert len(zlib.decompress(body, 16 + zlib.MAX_WBITS)) > 10_000
    assert ask(production, "GET", "/docs")[0] == 404  # off in production by default


@pytest.mark.parametrize("service", [*REPLICAS, "worker", "nginx", "redis", "postgres"])
def test_a_service_is_confined(production: Compose, service: str) -> None:
    found = json.loads(docker("inspect", production.id(service)))[0]
    host = found["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Memory"] > 0 < host["NanoCpus"]
    assert not any("SECRET" in variable or "PASSWORD=" in variable for variable in found["Config"]["Env"])
    if service != "postgres":  # its entrypoint switches to another user
        assert production.inside(service, "id", "-u") != "0"


def test_replicas_are_replaced_under_load_without_a_failed_request(
    production: Compose, product: int, authorization: str, record_property: Callable[[str, object], None]
) -> None:
    before = [production.id(replica) for replica in REPLICAS]
    paths = [f"/api/products/{product}", "/api/products?limit=1", "/api/products/search?q=lamp"]
    requests = [f"GET {path} HTTP/1.1\r\nHost: api.test\r\n\r\n".encode() for path in paths] * 10
    write = f"PATCH /api/products/{product} HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/json\r\n"
    write += f"Authorization: {authorization}\r\n"
    requests.append(f'{write}Content-Length: 11\r\n\r\n{{"stock":5}}'.encode())
    with under_load(int(production.environ["EDGE_HTTPS_PORT"]), requests, connections=4) as load:
        code, output = attempt(
            ["sh", "docker/roll.sh", f"--project-name={production.name}", *production.options],
            production.folder,
            production.environ,
        )
        assert code == 0, output
        eventually(lambda: load.answered >= REQUESTS_DURING_REPLACEMENT, "enough requests")
    assert not set(before) & {production.id(replica) for replica in REPLICAS}
    assert load.failures == {}
    record_property("requests while the replicas were replaced", f"{load.answered:,}, none of them failed")


def test_a_container_listens_on_its_port_and_ends_on_sigterm(production: Compose) -> None:
    arguments = ["--env=PORT=9001", "--env=WEB_CONCURRENCY=1"]
    arguments += ["--env=DATABASE_ALLOW_PLAINTEXT=true", "--env=HTTP_ALLOWED_HOSTS=*"]
    for name in ("app_secret_key", "database_url"):
        arguments.append(f"--volume={production.folder}/secrets/{name}:/run/secrets/{name}:ro")
    network = f"--network={production.name}_default"
    identity = docker("run", "--detach", *CONFINED, network, *arguments, production.environ["IMAGE"])
    try:
        health = ["inspect", "--format={{.State.Health.Status}}", identity]
        eventually(lambda: docker(*health) == "healthy", "the container is healthy")
        assert docker("exec", identity, "healthcheck.py", "/health/live") == '{"status":"alive"}'
        assert attempt(["docker", "exec", identity, "healthcheck.py", "/health/elsewhere"])[0] == 1
        docker("stop", "--time=30", identity)
        assert docker("inspect", "--format={{.State.ExitCode}}", identity) == "0", docker("logs", identity)
    finally:
        docker("rm", "--force", "--volumes", identity)


def readiness(production: Compose) -> tuple[int, str]:
    status, _, body = ask(production, "GET", "/health/ready")
    return status, json.loads(body).get("status", "")


@pytest.mark.parametrize(
    ("victim", "meanwhile", "answer"), [("postgres", (503, "unavailable"), 503), ("redis", (200, "degraded"), 200)]
)
def test_a_killed_server_is_survived(
    production: Compose, product: int, victim: str, meanwhile: tuple[int, str], answer: int
) -> None:
    docker("kill", production.id(victim))
    eventually(lambda: readiness(production) == meanwhile, f"{victim} is missed")
    status, headers, body = ask(production, "GET", "/api/products/search?q=nothing+of+this+kind")
    assert status == answer, body
    if status != 200:
        assert headers["content-type"] == "application/problem+json"
    production("up", "--detach", "--no-deps", "--wait", victim)
    eventually(lambda: readiness(production) == (200, "ready"), f"{victim} is found again")
    assert ask(production, "GET", f"/api/products/{product}")[0] == 200


def test_nginx_accepts_its_configuration_without_a_warning(production: Compose) -> None:
    said = production.inside("nginx", "nginx", "-e", "stderr", "-t", "-c", "/tmp/nginx.conf")
    assert "test is successful" in said
    assert "[warn]" not in said
