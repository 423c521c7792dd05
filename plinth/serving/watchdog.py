"""Finds code that blocks the event loop, and with it every request of the worker, while it blocks."""

import asyncio
import logging
import sys
import threading
import time
import traceback

log = logging.getLogger(__name__)

STACK_FRAMES = 12
REPEAT_SECONDS = 60.0


class Watchdog(threading.Thread):
    """Logs the stack of the thread that starts it once its event loop has run no timer for `blocked_seconds`.

    The same line of code is logged once in REPEAT_SECONDS, so that a busy machine does not fill the log.
    It needs the GIL. Where an extension in C never releases it, Gunicorn's timeout ends the worker, and faulthandler
    prints the stack.
    """

    def __init__(self, blocked_seconds: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._blocked_seconds = blocked_seconds
        self._pause_seconds = blocked_seconds / 4  # of the beats, and between two looks at them
        self._stopped = threading.Event()
        self._logged_at: dict[str, float] = {}

    def start(self) -> None:
        self._loop, self._watched_thread = asyncio.get_running_loop(), threading.get_ident()
        self._beat()
        super().start()

    def stop(self) -> None:
        self._stopped.set()

    def _beat(self) -> None:
        self._last_beat_at = time.monotonic()
        if not self._stopped.is_set():
            self._loop.call_later(self._pause_seconds, self._beat)

    def run(self) -> None:
        while not self._stopped.wait(self._pause_seconds):
            last_beat_at = self._last_beat_at
            if time.monotonic() - last_beat_at > self._blocked_seconds:
                is_logged = self._log_stack()
                while self._last_beat_at == last_beat_at and not self._stopped.wait(self._pause_seconds):
                    pass
                if is_logged:
                    seconds = self._last_beat_at - last_beat_at
                    log.warning("The event loop was blocked for %(seconds).1f s.", {"seconds": seconds})

    def _log_stack(self) -> bool:
        """Return whether it was: the same code is not logged again within REPEAT_SECONDS."""
        stack = traceback.extract_stack(sys._current_frames().get(self._watched_thread))[-STACK_FRAMES:]
        code = f"{stack[-1].filename}:{stack[-1].lineno} in {stack[-1].name}"
        now = time.monotonic()
        if now - self._logged_at.get(code, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return False
        self._logged_at[code] = now
        formatted = "".join(traceback.format_list(stack))
        log.warning("The event loop is blocked by %(code)s", {"code": code}, extra={"stack": formatted})
        return True
