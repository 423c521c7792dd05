"""What trusted proxies say about a request: the client's address, the scheme and the prefix of the path.

Uvicorn's `ProxyHeadersMiddleware` is switched off: with `*` it takes the leftmost address, which the client wrote, it
takes any text for an address, and does not understand `https,http`.
"""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

_NAMES = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-prefix"})
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_MAX_PREFIX = 640
# No percent-encoding, because a prefix is part of the decoded path as well.
_PREFIX_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-._~")


class ForwardedMiddleware:
    """Sets `client`, `scheme` and `root_path` from `X-Forwarded-For`, `-Proto` and `-Prefix` of trusted proxies.

    `trusted` lists addresses and networks: the client is the first address from the right that is in none of them. Or
    it is the number of proxies in front, at any address: the client is that many from the right. `*` is 1.
    `root_path` is the prefix of all paths, which may arrive with it or without it; `X-Forwarded-Prefix` counts if it is
    empty. Proxies must set or remove these headers, or clients can. Add it outermost.
    """

    def __init__(self, app: ASGIApp, trusted: str, root_path: str = "") -> None:
        self.app = app
        self.root_path = root_path
        self.hops, networks = parse_trusted(trusted)
        self.is_trusted = lru_cache(maxsize=1024)(_membership(networks))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self.app(scope, receive, send)
        client = scope.get("client")
        prefix = ""
        if self.hops or (client and self.is_trusted(client[0])):
            found: dict[bytes, list[str]] = {}
            for name, value in scope["headers"]:
                if name in _NAMES:
                    found.setdefault(name, []).extend(_elements(value))
            if found:
                scope = {**scope, **self._forwarded(scope, found)}
                prefix = _prefix(found.get(b"x-forwarded-prefix", []))
        if self.root_path:
            scope = _below(scope, self.root_path, is_stripped=not f"{scope['path']}/".startswith(f"{self.root_path}/"))
        elif prefix:
            scope = _below(scope, prefix, is_stripped=True)
        return self.app(scope, receive, send)

    def _forwarded(self, scope: Scope, found: dict[bytes, list[str]]) -> Scope:
        addresses, schemes = found.get(b"x-forwarded-for", []), found.get(b"x-forwarded-proto", [])
        forwarded: Scope = {}
        passed = self._passed(addresses)
        if passed:
            forwarded["client"] = _address(addresses[-passed])
        # One scheme for each address, or, from proxies that disagree about the lists, the outermost proxy's.
        scheme = schemes[-passed] if passed and len(schemes) == len(addresses) else schemes[0] if schemes else ""
        if scheme.lower() in _SCHEMES:
            websocket = scope["type"] == "websocket"
            forwarded["scheme"] = _SCHEMES[scheme.lower()] if websocket else scheme.lower()
        return forwarded

    def _passed(self, addresses: list[str]) -> int:
        """Return how far from the right the client's address is; 0 if the list does not say who that is."""
        passed = 0
        for text in reversed(addresses):
            address = _address(text)
            if address is None:  # the proxy that should have added an address did not, and the client wrote this
                break
            passed += 1
            if passed == self.hops or not (self.hops or self.is_trusted(address[0])):
                break
        return passed


def parse_trusted(trusted: str) -> tuple[int, list[IPv4Network | IPv6Network]]:
    """Return the number of hops, or the networks. Raises ValueError with a sentence."""
    parts = [part.strip() for part in trusted.split(",") if part.strip()]
    if parts == ["*"]:
        return 1, []
    if len(parts) == 1 and parts[0].isdecimal():
        if len(parts[0]) > 2:
            raise ValueError(f"{parts[0]} is more proxies than any request passes; the first address would be trusted")
        return int(parts[0]), []
    networks = []
    for part in parts:
        try:
            if "%" in part:  # a header has no zones, which are of one host
                raise ValueError("it has a zone")
            networks.append(ip_network(part))
        except ValueError as error:
            raise ValueError(
                f"{part!r} is neither an address nor a network, nor a number of proxies ({error})"
            ) from None
    return 0, networks


def route_path(scope: Scope) -> str:
    """Return the path as routes have it, without the prefix under which a proxy serves the app."""
    root_path, path = scope.get("root_path", ""), scope["path"]
    return path.removeprefix(root_path) or "/"


def _elements(value: bytes) -> list[str]:
    return [part for part in map(str.strip, value.decode("latin-1").split(",")) if part]


def _membership(networks: list[IPv4Network | IPv6Network]) -> Callable[[str], bool]:
    def is_trusted(host: str) -> bool:
        address = _address(host)
        return address is not None and any(ip_address(address[0]) in network for network in networks)

    return is_trusted


def _address(text: str) -> tuple[str, int] | None:
    """Parse `1.2.3.4`, `1.2.3.4:80`, `::1` or `[::1]:80`; None for anything else."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:  # it may be any text
            return None
        address = address.ipv4_mapped or address
    return str(address), int(port) if port.isdecimal() and port.isascii() and len(port) <= 5 else 0


def _prefix(values: list[str]) -> str:
    """Return the outermost proxy's prefix without its last slash, or nothing if it is none."""
    prefix = "".join(f"/{value.strip('/')}" for value in values if value.strip("/"))
    return prefix if _PREFIX_CHARACTERS.issuperset(prefix) and len(prefix) <= _MAX_PREFIX else ""


def _below(scope: Scope, prefix: str, *, is_stripped: bool) -> Scope:
    scope = {**scope, "root_path": prefix}
    if is_stripped:
        scope["path"] = prefix + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = prefix.encode() + scope["raw_path"]
    return scope
