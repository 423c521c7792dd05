"""Requests to Nginx, over TLS."""

import json
import socket
import ssl
from contextlib import closing
from http.client import HTTPResponse, HTTPSConnection
from typing import Any

from tests.containers.support import Compose


def connected(production: Compose) -> HTTPSConnection:
    tls = ssl.create_default_context(cafile=str(production.folder / "secrets" / "tls_certificate"))
    connection = HTTPSConnection("api.test", int(production.environ["EDGE_HTTPS_PORT"]), context=tls)
    raw = socket.create_connection(("127.0.0.1", connection.port), timeout=30)
    connection.sock = tls.wrap_socket(raw, server_hostname="api.test")
    return connection


def ask(
    production: Compose, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request, bytes or else JSON. Returns the status, the headers by lower-case name, and the body."""
    with closing(connected(production)) as connection:
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, sent, headers or {})
        return read(connection.getresponse())


def read(answer: HTTPResponse) -> tuple[int, dict[str, str], bytes]:
    headers: dict[str, str] = {}
    for name, value in answer.getheaders():
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return answer.status, headers, answer.read()


def posted(production: Compose, status: int, path: str, body: dict[str, Any], authorization: str = "") -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    answered, _, answer = ask(production, "POST", path, body, headers)
    assert answered == status, answer
    return json.loads(answer)
