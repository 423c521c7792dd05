"""Who sends a request, and who may call a route: everyone, or principals with a scope. Every route says which."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Security

from plinth.errors import ForbiddenError
from plinth.telemetry.requests import current_record

_SCOPE = "__plinth_scope__"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sends a request, as its credentials say."""

    kind: str
    """`user`, `key` for a program's API key, or `issuer` for a token of the trusted issuer."""
    id: str
    """Of the user, or the subject of the issuer's token."""
    scopes: frozenset[str]
    credential: str = ""
    """The id of the session or of the API key, which can be revoked."""

    @property
    def name(self) -> str:
        """Distinct for each principal: for limits, idempotency keys and the audit trail."""
        return f"{self.kind}:{self.id}"

    @property
    def owner(self) -> str:
        """Of what it makes: the same for a user and for the user's API keys."""
        return self.name if self.kind == "issuer" else f"user:{self.id}"


async def public() -> None:
    """Access for everyone."""


PUBLIC: Any = Depends(public)


def requires(provider: Callable[..., Any], scope: str = "") -> Any:
    """Access for principals with a scope, or for all of them: a dependency of a route, or of an alias.

    `provider` is the dependency that returns the principal, and raises UnauthenticatedError where there is none.
    """

    async def check(principal: Annotated[Principal, Depends(provider)]) -> Principal:
        if record := current_record.get():
            record.user = principal.name
        if scope and scope not in principal.scopes:
            raise ForbiddenError(f"This needs the scope `{scope}`.", scope)
        return principal

    setattr(check, _SCOPE, scope)
    return Security(check, scopes=[scope] if scope else [])


def accesses(route: Any) -> Iterator[str]:
    """What a route says about who may call it: `public`, a scope, or nothing but a principal (an empty text).

    `route` is one of `fastapi.routing.iter_route_contexts(app.routes)`, which has the dependencies of its routers too.
    """
    for dependant in _tree(route.dependant):
        if dependant.call is public:
            yield "public"
        elif (scope := getattr(dependant.call, _SCOPE, None)) is not None:
            yield scope


def _tree(dependant: Any) -> Iterator[Any]:
    yield dependant
    for each in dependant.dependencies:
        yield from _tree(each)
