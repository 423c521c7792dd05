"""The app, with an endpoint that blocks the event loop for a while, and one that tells of the worker it is in."""

import gc
import time

from app.main import app

collects_while_imported = gc.isenabled()


@app.get("/block")
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - that is the fault


@app.get("/collector")
async def collector() -> tuple[bool, bool, int, int]:
    return collects_while_imported, gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count()
