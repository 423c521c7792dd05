"""The app, with endpoints that block the event loop, take a body, and show the garbage collector of their worker."""

import gc
import time

from app.main import app

enabled_during_import = gc.isenabled()


@app.get("/block")
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - this is what the watchdog must find


@app.get("/collector")
async def collector() -> tuple[bool, bool, int, int]:
    return enabled_during_import, gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count()


@app.post("/names", status_code=201)
async def take_name(data: dict[str, str]) -> dict[str, str]:
    return data
