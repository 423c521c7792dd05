"""The app, with an endpoint that blocks the event loop for a while."""

import time

from app.main import app


@app.get("/block")
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
