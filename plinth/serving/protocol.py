"""Uvicorn's HTTP protocol, and what a server that stops needs to know of each connection."""

from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    stopping: ClassVar[bool] = False
    """Set for the whole process when its server stops: each response then ends its connection."""

    @property
    def idle(self) -> bool:
        """Whether every request that was received, even in part, has its whole response."""
        answered = self.cycle.scope if self.cycle and self.cycle.response_complete else None
        return self.scope is answered  # the first byte of a request replaces the scope

    def announce_close(self) -> None:
        """Send `Connection: close` with the next response, unless its head has been sent already."""
        if self.cycle and not self.cycle.response_started:
            self.shutdown()  # closes nothing while a response is outstanding

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.stopping:
            self.announce_close()
