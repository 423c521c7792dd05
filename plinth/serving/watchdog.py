"""A coroutine that blocks stops every request of its worker: this tells which code does, while it does."""

import logging
import sys
import threading
import time
import traceback

log = logging.getLogger(__name__)

BLOCKED_SECONDS = 1.0
_FRAMES = 12


class Watchdog(threading.Thread):
    """Told `seen()` by the event loop all the time, it warns once when it has heard nothing for BLOCKED_SECONDS.

    It needs the GIL: code that never gives it up (an extension in C) is shown by the traceback that ends the worker.
    """

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._watched = threading.get_ident()
        self._seen_at = time.monotonic()
        self._stopped = threading.Event()

    def seen(self) -> None:
        self._seen_at = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(BLOCKED_SECONDS / 4):
            seen_at = self._seen_at
            if time.monotonic() - seen_at > BLOCKED_SECONDS:
                self._tell()
                while self._seen_at == seen_at and not self._stopped.wait(BLOCKED_SECONDS / 4):
                    pass
                log.warning("The event loop was blocked for %(seconds).1f s.", {"seconds": self._seen_at - seen_at})

    def _tell(self) -> None:
        frame = sys._current_frames().get(self._watched)
        stack = traceback.extract_stack(frame)[-_FRAMES:]
        where = f"{stack[-1].filename}:{stack[-1].lineno} in {stack[-1].name}"
        log.warning(
            "The event loop is blocked by %(code)s",
            {"code": where},
            extra={"stack": "".join(traceback.format_list(stack))},
        )
