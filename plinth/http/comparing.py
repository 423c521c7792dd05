"""Compares responses to GET and HEAD with the preconditions of the request, and ends responses that are not sent."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.http.conditional import PRECONDITION_FAILED, Headers, conditions_of, evaluate, kept_by_304
from plinth.http.problems import problem

_METHODS = frozenset({"GET", "HEAD"})


class ResponseEnded(OSError):  # noqa: N818 - a signal
    """Raised by `send` to end a stream of which no more is sent, as the disconnect of a client does."""


async def run_until_ended(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Call an app whose `send` may raise ResponseEnded. That it comes out of the app is no error."""
    try:
        await app(scope, receive, send)
    except Exception as error:
        if not _is_end(error):
            raise


class ConditionalMiddleware:
    """Answers 304 to a GET or HEAD if the client already has the response, and 412 if it expects another one.

    Add it outside of `GZipMiddleware`: each encoding has an ETag of its own, and a 304 must carry the right one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] not in _METHODS:
            return self.app(scope, receive, send)
        conditions = conditions_of(scope)
        if not conditions:
            return self.app(scope, receive, send)
        return run_until_ended(self.app, scope, receive, _comparing(conditions, scope, receive, send))


def comparing(scope: Scope, receive: Receive, send: Send) -> Send:
    """Wrap `send` so that it replaces a 200 or 206 by a 304 or 412 if the preconditions of the request say so."""
    conditions = conditions_of(scope)
    return _comparing(conditions, scope, receive, send) if conditions else send


def _comparing(conditions: Headers, scope: Scope, receive: Receive, send: Send) -> Send:
    replaced = False

    async def comparing_send(message: Message) -> None:
        nonlocal replaced
        if replaced:
            if message.get("more_body"):
                raise ResponseEnded("The response was replaced")
        elif message["type"] == "http.response.start" and message["status"] in {200, 206}:
            headers = message.get("headers", ())
            status = evaluate(conditions, dict(headers))
            replaced = status != 200
            if status == 304:
                await send({"type": "http.response.start", "status": 304, "headers": kept_by_304(headers)})
                await send({"type": "http.response.body", "body": b""})
            elif status == 412:
                await problem(412, PRECONDITION_FAILED)(scope, receive, send)
            else:
                await send(message)
        else:
            await send(message)

    return comparing_send


def _is_end(error: BaseException | None) -> bool:
    """Return whether an error is, or was raised because of, ResponseEnded. Task groups put it into a group."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_end(each) for each in error.exceptions)
    return error is not None and (isinstance(error, ResponseEnded) or _is_end(error.__cause__ or error.__context__))
