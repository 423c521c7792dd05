"""The deadline of a request."""

from collections.abc import Awaitable

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plinth.errors import DeadlineError
from plinth.http.errors import app_error
from plinth.resilience.deadline import deadline, lift


class DeadlineMiddleware:
    """Answers 504 where no response has started after `seconds`. A stream that has started is not interrupted.

    Place it inside of ResponseCacheMiddleware, so that cached responses do not pay for it, and just outside of
    UnhandledErrorMiddleware.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app = app
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        # Not a coroutine: returning the awaitable saves a coroutine call per message.
        def lifting_send(message: Message) -> Awaitable[None]:
            nonlocal started
            if not started:
                lift()
                started = True
            return send(message)

        try:
            async with deadline(self.seconds):
                await self.app(scope, receive, lifting_send)
        except DeadlineError as error:
            if started:
                raise
            response = await app_error(Request(scope, receive), error)
            await response(scope, receive, send)
