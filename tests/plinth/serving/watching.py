"""The app, with a stream that lasts as long as something is watched."""

from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import StreamingResponse

from app.dependencies import state_of
from app.main import app


@app.get("/watch")
async def watch(request: Request) -> StreamingResponse:
    async def looks() -> AsyncIterator[bytes]:
        async for _ in state_of(request)["database"].notifications.watch("orders", 600):
            yield b"look\n"

    return StreamingResponse(looks(), media_type="text/event-stream")
