"""A JSON response for bodies that are built by hand, and links in response headers."""

from typing import Any
from urllib.parse import quote, unquote_plus

import orjson
from fastapi import Request, Response
from starlette.responses import JSONResponse
from starlette.types import Scope

# The characters of a path and a query string (RFC 3986). "%" is among them: what the client encoded is not changed.
_URI = "%!$&'()*+,;=:@/?-._~"


class ORJSONResponse(JSONResponse):
    """Serializes with orjson. Not for endpoints with a return type, which Pydantic serializes faster by itself."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


class Links:
    """Sets `Link` and `Location`. Targets are relative, because a proxy may serve the API under another host name."""

    def __init__(self, request: Request, response: Response) -> None:
        self._scope = request.scope
        self._headers = response.headers

    def page(self, next_cursor: str | None) -> None:
        """Set `Link` (RFC 8288) to the first page and, unless `next_cursor` is None, to the next page.

        Both keep the query parameters of this request, except `cursor`.
        """
        links = [f'<{self._page_url(cursor=None)}>; rel="first"']
        if next_cursor is not None:
            links.append(f'<{self._page_url(next_cursor)}>; rel="next"')
        self._headers.append("Link", ", ".join(links))

    def created(self, id: int | str) -> None:
        """Set `Location` (RFC 9110 §10.2.2) to the resource with this id below the URL of the request."""
        self._headers["Location"] = f"{raw_path(self._scope)}/{quote(str(id), '')}"

    def _page_url(self, cursor: str | None) -> str:
        query = [pair for pair in raw_query(self._scope).split("&") if pair and _name(pair) != "cursor"]
        if cursor is not None:
            query.append(f"cursor={quote(cursor, '')}")
        path = raw_path(self._scope)
        return f"{path}?{'&'.join(query)}" if query else path


def raw_path(scope: Scope) -> str:
    """Return the path as the client percent-encoded it, safe to use in a header."""
    return quote(scope.get("raw_path") or quote(scope["path"]).encode(), _URI)


def raw_query(scope: Scope) -> str:
    """Return the query string as the client percent-encoded it, safe to use in a header."""
    return quote(scope["query_string"], _URI)


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])
