"""What a dependency may do around an endpoint on a FastRoute: answer in its place, or see its response before it ends.

FastAPI builds the response inside of the function-scoped dependencies, whose exit commits. So what such a callback
stores in the request's session is committed together with what the endpoint changed, or not at all.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response

_KEY = "plinth.on_response"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
OnResponse = Callable[[Response], Awaitable[None]]


class Answered(Exception):  # noqa: N818 - not an error
    """A dependency raises it, and its response is sent. The endpoint and the dependencies after this one do not run."""

    def __init__(self, response: Response) -> None:
        self.response = response


def on_response(request: Request, callback: OnResponse) -> None:
    """Run `callback` once the response of the endpoint is built, and before function-scoped dependencies exit.

    It is not run where the endpoint raises. What it raises itself rolls back, and is answered like any other error.
    Raises RuntimeError where the route is not a FastRoute, which would never run it.
    """
    callbacks = request.scope.get(_KEY)
    if callbacks is None:
        path = getattr(request.scope.get("route"), "path", request.scope["path"])
        raise RuntimeError(f"The route {path} must be a FastRoute: make its router with route_class=FastRoute.")
    callbacks.append(callback)


def answering(handler: Handler) -> Handler:
    """A handler that does so around this one."""

    async def handle(request: Request) -> Response:
        callbacks: list[OnResponse] = []
        request.scope[_KEY] = callbacks
        try:
            response = await handler(request)
        except Answered as answered:
            return answered.response
        for callback in callbacks:
            await callback(response)
        return response

    return handle
