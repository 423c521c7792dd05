"""The target of a request: the host it was sent to, and its path (RFC 9110 §7.1)."""

import re
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from starlette.types import ASGIApp, Receive, Scope, Send

from plinth.http.forwarded import route_path
from plinth.http.problems import problem

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?")
_MAX_HOST_BYTES = 259
# The characters that end a line for Python. `$` in the pattern of a route matches before the last of them.
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class RequestTargetMiddleware:
    """Answers 400 to requests whose Host is not valid or not allowed, and to those with a line break in the path.

    `allowed_hosts` are names, `*.example.com` for all names below that one, or `*`. Any host may be named in requests
    for paths that begin with `exempt`: probes send an address. That there is a Host is checked by the server.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str] = ("*",), exempt: str = "/health/") -> None:
        self.app = app
        self.exempt = exempt
        self.any = "*" in allowed_hosts
        self.names = frozenset(host.lower() for host in allowed_hosts)
        self.suffixes = tuple(host[1:].lower() for host in allowed_hosts if host.startswith("*."))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self.app(scope, receive, send)
        fault = self._fault(scope)
        if fault is None:
            return self.app(scope, receive, send)
        return _refuse(fault, scope, receive, send)

    def _fault(self, scope: Scope) -> str | None:
        path, hosts = scope["path"], [value for name, value in scope["headers"] if name == b"host"]
        if not path.isprintable() and _LINE_BREAK.search(path):
            return "The path contains a line break."
        name = host_name(hosts[0]) if len(hosts) == 1 else None
        if hosts and name is None:
            return "The request must have one valid Host header."
        if self.any or (name and self._is_allowed(name)) or route_path(scope).startswith(self.exempt):
            return None
        return "This service does not answer for the host in the Host header."

    def _is_allowed(self, name: str) -> bool:
        return name in self.names or name.endswith(self.suffixes)


# Few distinct values are sent, or an attacker's: the size and the length bound what those occupy.
@lru_cache(maxsize=256)
def _host_name(host: bytes) -> str | None:
    match = _HOST.fullmatch(host.decode("latin-1"))
    if match is None or int(match[2] or 0) > 65535:
        return None
    name = match[1].lower()
    if name.startswith("["):
        try:
            IPv6Address(name[1:-1])
        except AddressValueError:
            return None
    return name


def host_name(host: bytes) -> str | None:
    """Return the name or address of a Host header in lower case, without the port; None if it is not valid."""
    return _host_name(host) if len(host) <= _MAX_HOST_BYTES else None


async def _refuse(fault: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": fault})  # before it was accepted: 403
    else:
        await problem(400, fault)(scope, receive, send)
