"""Nginx alone, with a probe in place of the replicas."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPSConnection
from typing import Any

import pytest

from tests.containers.support import CONFINED, ROOT, docker, eventually, free_port

TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE
CONNECTIONS_PER_ADDRESS = 5
PROBE = "containers-test-probe"


@pytest.fixture(scope="module")
def port(image: str, nginx_image: str) -> Iterator[int]:
    """The port of Nginx, with a self-signed certificate."""
    port = free_port()
    aliases = [f"--network-alias=api-{number}" for number in (1, 2, 3)]
    volume = f"--volume={ROOT}/tests/containers/probe.py:/probe.py:ro"
    with ExitStack() as stack:
        docker("network", "create", PROBE)
        stack.callback(docker, "network", "rm", PROBE)
        run = ["run", "--detach", f"--network={PROBE}", *CONFINED]
        probe = docker(*run, *aliases, volume, image, "python", "/probe.py")
        stack.callback(docker, "rm", "--force", "--volumes", probe)
        limits = [f"--env=CONNECTIONS_PER_ADDRESS={CONNECTIONS_PER_ADDRESS}", "--env=REQUESTS_PER_SECOND=1000"]
        nginx = docker(*run, *limits, f"--publish=127.0.0.1:{port}:8443", nginx_image)
        stack.callback(docker, "rm", "--force", "--volumes", nginx)
        eventually(lambda: reachable(port), f"Nginx answers: {docker('logs', nginx)}")
        yield port


def reachable(port: int) -> bool:
    try:
        return ask(port, "GET", "/")[0] == 200
    except OSError:
        return False


def opened(port: int) -> HTTPSConnection:
    return HTTPSConnection("127.0.0.1", port, context=TLS, timeout=30)


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Send a request. Returns the status and the body as JSON."""
    with closing(opened(port)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def asked(port: int, request: str) -> int:
    return int(ask(port, "GET", "/")[1]["asked"].get(request, 0))


def test_http2_is_offered(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port)) as raw, context.wrap_socket(raw) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_forwarding_headers_of_a_client_are_overwritten(port: int) -> None:
    claims = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Proto": "http", "Forwarded": "for=192.0.2.1"}
    _, seen = ask(port, "GET", "/", None, **claims, X_Forwarded_Host="evil.example", Host="api.test:8443")
    headers = seen["headers"]
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == "api.test:8443"
    assert "192.0.2.1" not in json.dumps(headers)
    assert "evil.example" not in json.dumps(headers)


@pytest.mark.parametrize(("method", "attempts"), [("GET", 3), ("PUT", 1), ("DELETE", 1), ("POST", 1), ("PATCH", 1)])
def test_a_change_that_was_sent_is_never_repeated(port: int, method: str, attempts: int) -> None:
    eventually(lambda: ask(port, "GET", "/")[0] == 200, "no replica is marked as failed")
    before = asked(port, f"{method} /drop")
    status, problem = ask(port, method, "/drop")
    assert (status, problem["type"], problem["status"]) == (502, "urn:problem-type:bad-gateway", 502)
    eventually(lambda: ask(port, "GET", "/")[0] == 200, "the replicas are back")
    assert asked(port, f"{method} /drop") - before == attempts


def test_an_event_is_sent_before_the_next_one_exists(port: int) -> None:
    with closing(opened(port)) as connection:
        connection.request("GET", "/events")
        stream = connection.getresponse()
        assert stream.readline() == b'data: "first"\n'
        ask(port, "POST", "/release")
        assert stream.read() == b'\ndata: "second"\n\n'


def test_a_body_that_is_too_large_is_refused(port: int) -> None:
    status, problem = ask(port, "POST", "/", b"x" * 262_145)
    assert (status, problem["type"]) == (413, "urn:problem-type:content-too-large")
    assert ask(port, "POST", "/", b"x" * 262_144)[0] == 200
    assert ask(port, "PUT", "/things/1/image", b"x" * 5_242_880)[0] == 200
    assert ask(port, "PUT", "/things/1/image", b"x" * 5_242_881)[0] == 413
    assert ask(port, "POST", "/things/bulk", b"x" * 67_108_864)[0] == 200
    status, problem = ask(port, "POST", "/things/bulk", b"x" * 67_108_865)
    assert (status, problem["type"]) == (413, "urn:problem-type:content-too-large")


def test_an_address_has_limited_concurrent_requests(port: int) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(closing(opened(port))) for _ in range(CONNECTIONS_PER_ADDRESS)]
        for connection in held:
            connection.request("GET", "/hold")
        eventually(lambda: ask(port, "GET", "/")[0] == 429, "the limit is reached")
        held.pop().close()
        eventually(lambda: ask(port, "GET", "/release")[0] == 200, "there is room again")
        assert {connection.getresponse().status for connection in held} == {200}


@pytest.mark.parametrize(
    "begun",
    [None, b"GET / HTTP/1.1\r\nX-Slow: ", b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n123"],
    ids=["handshake", "headers", "body"],
)
def test_a_slow_client_is_disconnected(port: int, begun: bytes | None) -> None:
    """Within 15 seconds, in whichever part of its request it stalls, and even if it trickles bytes."""
    with socket.create_connection(("127.0.0.1", port)) as raw, ExitStack() as stack:
        client = raw
        if begun:
            client = stack.enter_context(TLS.wrap_socket(raw))
            client.sendall(begun)
        give_up_at = time.monotonic() + 15
        client.settimeout(1)
        while still_open(client):
            assert time.monotonic() < give_up_at
            if begun and begun.startswith(b"GET"):
                client.sendall(b"x")


def still_open(client: socket.socket) -> bool:
    """Whether the connection is open after a second of silence."""
    try:
        return bool(client.recv(4096))
    except TimeoutError:
        return True
    except (ConnectionResetError, ssl.SSLEOFError):
        return False
