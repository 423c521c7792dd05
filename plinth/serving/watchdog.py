"""Finds code that blocks the event loop, and with it every request of the worker, while it blocks."""

import logging
import sys
import threading
import time
import traceback

log = logging.getLogger(__name__)

BLOCKED_SECONDS = 1.0
STACK_FRAMES = 12


class Watchdog(threading.Thread):
    """Logs the stack of the thread that made it, once that has not called `beat()` for BLOCKED_SECONDS.

    It needs the GIL. Where an extension in C never releases it, Gunicorn's timeout ends the worker, and faulthandler
    prints the stack.
    """

    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._watched_thread = threading.get_ident()
        self._stopped = threading.Event()
        self.beat()

    def beat(self) -> None:
        self._last_beat_at = time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.wait(BLOCKED_SECONDS / 4):
            last_beat_at = self._last_beat_at
            if time.monotonic() - last_beat_at > BLOCKED_SECONDS:
                self._log_stack()
                while self._last_beat_at == last_beat_at and not self._stopped.wait(BLOCKED_SECONDS / 4):
                    pass
                seconds = self._last_beat_at - last_beat_at
                log.warning("The event loop was blocked for %(seconds).1f s.", {"seconds": seconds})

    def _log_stack(self) -> None:
        stack = traceback.extract_stack(sys._current_frames().get(self._watched_thread))[-STACK_FRAMES:]
        code = f"{stack[-1].filename}:{stack[-1].lineno} in {stack[-1].name}"
        formatted = "".join(traceback.format_list(stack))
        log.warning("The event loop is blocked by %(code)s", {"code": code}, extra={"stack": formatted})
