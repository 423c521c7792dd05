"""Where limits act: `limited` at a route, `LimitMiddleware` before the cache and routing."""

from collections.abc import Awaitable, Callable, Collection
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import LimitError
from plinth.http.errors import app_error
from plinth.http.forwarded import route_path
from plinth.security.limits import Limits, LocalLimit, Quota
from plinth.security.settings import LimitSettings, parse_limit
from plinth.telemetry.metrics import LIMIT_REFUSALS

_QUOTAS = "plinth.quotas"


async def client_key(request: Request) -> str:
    """The client's address, as ForwardedMiddleware has found it: what a client writes into a header does not count."""
    return address_key(request.client.host if request.client else "")


def limited(name: str, limit: str | None = None, key: Callable[..., Any] = client_key) -> Any:
    """Limit a route: `dependencies=[limited("login", "10/minute")]`; without a text, as LIMIT_<NAME> says.

    Requests with the same `key` are counted together, at all routes with the same `name`. It is a dependency that
    returns a text, such as the name of the principal; by default the client's address.
    """
    if limit is None and name not in LimitSettings.model_fields:
        raise ValueError(f"There is no setting LIMIT_{name.upper()}: write the limit here")
    own = None if limit is None else parse_limit(limit)

    async def check(request: Request, key: Annotated[str, Depends(key)]) -> None:
        limits: Limits = request.scope["state"]["limits"]
        policy = own if limit is not None else limits.configured[name]
        if policy is not None:
            quota = await limits.count(name, policy, key)
            request.scope.get(_QUOTAS, []).append(quota)
            if quota.remaining < 0:
                raise too_many(quota)

    return Depends(check)


class LimitMiddleware:
    """Limits reads (GET and HEAD) by address, each worker by its share, and shows the quotas of limited routes.

    `limit` is a text such as `6000/minute`, and `off` is none. Requests without an address, of a Unix socket, and those
    for the paths in `exempt` are not limited. Place it outside of ResponseCacheMiddleware, and inside of
    ForwardedMiddleware, which finds the address, and of CORS, so that browsers may read its answers.

    Reads show their quota only when little of it is left, as the draft suggests: the fields would be larger than many
    a response, and wrong in each one that a cache in between has stored.
    """

    def __init__(self, app: ASGIApp, limit: str, workers: int, exempt: Collection[str] = ()) -> None:
        self.app = app
        self.exempt = frozenset(exempt)
        policy = parse_limit(limit)
        self.reads = None if policy is None else LocalLimit("reads", policy, workers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.app(scope, receive, send)
        quotas: list[Quota] = []
        scope[_QUOTAS] = quotas

        def limiting_send(message: Message) -> Awaitable[None]:
            if quotas and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_fields(quotas)]}
            return send(message)

        reads, client = self.reads, scope.get("client")
        path = route_path(scope) if scope.get("root_path") else scope["path"]
        if reads is not None and client and scope["method"] in {"GET", "HEAD"} and path not in self.exempt:
            remaining = reads.count(address_key(client[0]))
            if remaining <= reads.shown_from:
                quotas.append(reads.quota(remaining))
                if remaining < 0:
                    return _refuse(quotas[0], scope, receive, limiting_send)
        return self.app(scope, receive, limiting_send)


def too_many(quota: Quota) -> LimitError:
    LIMIT_REFUSALS.labels(quota.name).inc()
    return LimitError(f"There were too many requests. Try again in {quota.reset_seconds} seconds.", quota.reset_seconds)


async def _refuse(quota: Quota, scope: Scope, receive: Receive, send: Send) -> None:
    response = await app_error(Request(scope, receive), too_many(quota))
    await response(scope, receive, send)


def _fields(quotas: list[Quota]) -> list[tuple[bytes, bytes]]:
    now, policies = zip(*(quota.fields for quota in quotas), strict=True)
    return [(b"ratelimit", ", ".join(now).encode()), (b"ratelimit-policy", ", ".join(policies).encode())]


def address_key(host: str) -> str:
    return _network(host) if ":" in host else host


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """The /64 of an IPv6 address, all of which one client has at its disposal; the IPv4 address that one maps."""
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))
