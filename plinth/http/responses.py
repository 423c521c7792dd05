"""What we write ourselves leaves through orjson; everything else is FastAPI's own fast path.

Setting `ORJSONResponse` as an app's default response class would switch that fast path off.
"""

from typing import Any
from urllib.parse import quote, unquote_plus

import orjson
from fastapi import Request, Response
from starlette.responses import JSONResponse
from starlette.types import Scope

# What may stand in a path and a query (RFC 3986), "%" included: what the client encoded stays as it was sent.
_URI = "%!$&'()*+,;=:@/?-._~"


class ORJSONResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_UTC_Z)


class Links:
    """Says in headers where other things are, relative to this address: only the client knows by which name it came."""

    def __init__(self, request: Request, response: Response) -> None:
        self._scope = request.scope
        self._headers = response.headers

    def page(self, next_cursor: str | None) -> None:
        """Link the first page and, unless this is the last, the next one (`Link`, RFC 8288)."""
        links = [f'<{self._list(cursor=None)}>; rel="first"']
        if next_cursor is not None:
            links.append(f'<{self._list(next_cursor)}>; rel="next"')
        self._headers.append("Link", ", ".join(links))

    def created(self, id: object) -> None:
        """Name the address of what was posted to this one (`Location`, RFC 9110 §10.2.2)."""
        self._headers["Location"] = f"{sent_path(self._scope)}/{quote(str(id), '')}"

    def _list(self, cursor: str | None) -> str:
        query = [pair for pair in sent_query(self._scope).split("&") if pair and _name(pair) != "cursor"]
        if cursor is not None:
            query.append(f"cursor={quote(cursor, '')}")
        path = sent_path(self._scope)
        return f"{path}?{'&'.join(query)}" if query else path


def sent_path(scope: Scope) -> str:
    """The path with the percent-encoding it was sent with, fit for a header."""
    return quote(scope.get("raw_path") or quote(scope["path"]).encode(), _URI)


def sent_query(scope: Scope) -> str:
    """The query string with the percent-encoding it was sent with, fit for a header."""
    return quote(scope["query_string"], _URI)


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0])
