"""`Idempotency-Key`: a POST that is sent again, because its answer was lost, say, is answered as the first time.

The key and the response are stored in the transaction of the request: its effect is never committed without them. A
second request with the same key waits in its INSERT until the first one has committed, and is answered with what that
stored; or has rolled back, and makes the change. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

from asyncpg import LockNotAvailableError
from fastapi import Depends, Header, Request, Response
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from plinth.database import Session
from plinth.errors import ConflictError
from plinth.http.answering import Answered, on_response
from plinth.http.responses import Validators, validators_of

WAIT_SECONDS = 3  # for a request with the same key; each one that waits has a connection of the pool
# The draft's form is a quoted string (RFC 9651 §3.3.3). Many clients send the text itself.
KEY = r'^("[ !#-\[\]-~]{1,255}"|[!#-\[\]-~]{1,255})$'
DOCUMENTED: Any = {
    "alias": "Idempotency-Key",
    "description": "A new UUID for each request. For a day, the same request with it is done once and answered again.",
    "examples": ['"8e03978e-40d5-43e8-bc93-6894a57f9324"'],
    "json_schema_extra": {"pattern": KEY},
}

# The limit on the wait is for this statement only: RETURNING sets it back once the row is inserted.
CLAIM = text("""
    WITH bound AS MATERIALIZED (
        SELECT before, set_config('lock_timeout', CAST(:wait AS text), true)
        FROM (SELECT current_setting('lock_timeout') AS before OFFSET 0) AS present
    )
    INSERT INTO plinth_idempotency_keys (key, fingerprint)
    SELECT CAST(:key AS bytea), CAST(:fingerprint AS bytea) FROM bound
    ON CONFLICT (key) DO NOTHING
    RETURNING set_config('lock_timeout', (SELECT before FROM bound), true)
""")
STORED = text("""
    SELECT fingerprint, status, headers, body, version, last_modified_at FROM plinth_idempotency_keys WHERE key = :key
""")
STORE = text("""
    UPDATE plinth_idempotency_keys
    SET status = :status, headers = :headers, body = :body, version = :version, last_modified_at = :last_modified_at
    WHERE key = :key
""")
FORGET = text("DELETE FROM plinth_idempotency_keys WHERE key = :key")
PRUNE = text("""
    DELETE FROM plinth_idempotency_keys WHERE key IN (
        SELECT key FROM plinth_idempotency_keys WHERE created_at < now() - CAST(:older AS interval)
        LIMIT :most FOR UPDATE SKIP LOCKED
    )
""")


async def anyone() -> str:
    return ""


def idempotent(session: Callable[..., Any], principal: Callable[..., Any] = anyone) -> Any:
    """Make a route take an Idempotency-Key: `dependencies=[IDEMPOTENT]`, with `IDEMPOTENT = idempotent(get_session)`.

    `session` is the function-scoped dependency that returns the request's Session, and `principal` one that returns a
    text which is distinct for each principal: a key of one is unknown to the others. The route must be a FastRoute.
    """

    async def check(
        request: Request,
        session: Annotated[Session, Depends(session, scope="function")],
        principal: Annotated[str, Depends(principal)],
        key: Annotated[str | None, Header(**DOCUMENTED)] = None,
    ) -> None:
        claimed = None if key is None else _hash(principal, _route(request), _parsed(request))
        on_response(request, partial(_store, session, claimed, request))
        if claimed is not None:
            await _claim(session, claimed, request)

    return Depends(check)


async def prune_idempotency_keys(session: Session, older_than: timedelta, most: int = 10_000) -> int:
    """Delete at most so many keys that are older, and return how many there were."""
    deleted: Any = await session.execute(PRUNE, {"older": older_than, "most": most})
    return int(deleted.rowcount)


async def _claim(session: Session, key: bytes, request: Request) -> None:
    fingerprint = _hash(request.scope["path"], request.scope["query_string"], *await _content(request))
    values = {"key": key, "fingerprint": fingerprint, "wait": f"{WAIT_SECONDS}s"}
    try:
        if (await session.execute(CLAIM, values)).first() is not None:
            return
    except DBAPIError as error:
        if error.orig is not None and isinstance(error.orig.__cause__, LockNotAvailableError):
            raise ConflictError("A request with this Idempotency-Key is still being processed. Try again.") from error
        raise
    stored = (await session.execute(STORED, {"key": key})).first()
    if stored is None:  # pruned in between
        raise ConflictError("This Idempotency-Key has just expired. Send the request with another one.")
    if stored.fingerprint != fingerprint:
        raise HTTPException(422, "This Idempotency-Key was sent with another request. Use a new key for each request.")
    if stored.version is not None:
        Validators(request).set(stored.version, stored.last_modified_at)
    response = Response(stored.body, stored.status)
    for name, value in zip(stored.headers[::2], stored.headers[1::2], strict=True):
        response.headers.append(name, value)
    response.headers["Idempotency-Replayed"] = "true"
    raise Answered(response)


async def _store(session: Session, key: bytes | None, request: Request, response: Response) -> None:
    if key is None:
        return
    if not 200 <= response.status_code < 300:
        await session.execute(FORGET, {"key": key})
        return
    if not isinstance(body := getattr(response, "body", None), bytes):
        raise RuntimeError("The response to an Idempotency-Key is stored, and cannot be a stream.")
    headers = [part for pair in response.headers.items() if pair[0] != "content-length" for part in pair]
    version, last_modified_at = validators_of(request.scope) or (None, None)
    values = {"version": version, "last_modified_at": last_modified_at, "headers": headers, "body": body}
    await session.execute(STORE, {"key": key, "status": response.status_code, **values})


async def _content(request: Request) -> list[str | bytes]:
    """The body. A form is read by FastAPI before any dependency: of that, its fields, whose boundary may differ."""
    try:
        return [await request.body()]
    except RuntimeError:
        parts: list[str | bytes] = []
        for name, value in (await request.form()).multi_items():
            if isinstance(value, str):
                parts += [name, "text", value]
            else:
                parts += [name, "file", value.filename or "", value.content_type or "", await _digest(value)]
        return parts


async def _digest(file: UploadFile) -> bytes:
    whole = sha256()
    while piece := await file.read(65_536):
        whole.update(piece)
    await file.seek(0)
    return whole.digest()


def _parsed(request: Request) -> str:
    [sent, *others] = request.headers.getlist("Idempotency-Key")
    if others or not re.fullmatch(KEY, sent):
        raise HTTPException(400, "Idempotency-Key must be 1 to 255 characters of ASCII in quotes: send a UUID.")
    return sent.strip('"')


def _route(request: Request) -> str:
    context = request.scope.get("fastapi", {}).get("effective_route_context")
    return f"{request.method} {getattr(context, 'path', None) or request.scope['route'].path}"


def _hash(*parts: str | bytes) -> bytes:
    """Of each part by itself, so that what one ends with is not taken for the beginning of the next."""
    whole = sha256()
    for part in parts:
        whole.update(sha256(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part).digest())
    return whole.digest()
