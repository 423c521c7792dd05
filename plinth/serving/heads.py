"""The head of a request, its request line and header block: its limits, and the protocol that it may ask for."""

import re
from typing import NamedTuple

from plinth.serving.refusals import Refusal

MAX_REQUEST_LINE = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADER_FIELDS = 100
PIECE_BYTES = 32 * 1024  # parsed at once
MAX_OTHER_BYTES = 2 * PIECE_BYTES
"""Of empty lines before a request, extensions of chunks or a trailer, in succession; with the end of what is before."""
HEAD_END = b"\r\n\r\n"
_FRAMING = {b"content-length", b"transfer-encoding"}


class Head(NamedTuple):
    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    """With names in lower case."""

    @property
    def field_bytes(self) -> int:
        return sum(len(name) + len(value) + len(b": \r\n") for name, value in self.fields)

    def check_size(self, field_bytes: int) -> None:
        if len(self.method) + len(self.target) + len(b"  HTTP/1.1") > MAX_REQUEST_LINE:
            raise Refusal(414, f"The request line is longer than {MAX_REQUEST_LINE} bytes.")
        if field_bytes > MAX_HEADER_BYTES or len(self.fields) > MAX_HEADER_FIELDS:
            detail = f"The header is larger than {MAX_HEADER_BYTES} bytes or has more than {MAX_HEADER_FIELDS} fields."
            raise Refusal(431, detail)

    @staticmethod
    def check_other_bytes(count: int) -> None:
        if count > MAX_OTHER_BYTES:
            raise Refusal(400, "Too much was sent that is neither the header nor the body of a request.")

    def check_method(self) -> None:
        if self.method == b"CONNECT":  # what follows is not HTTP
            raise Refusal(501, "This server is not a proxy.")

    def check_no_body(self) -> None:
        """httptools parses nothing after a head that ends the connection, not even a body after an `Upgrade`."""
        if any(name in _FRAMING for name, _ in self.fields):
            raise Refusal(400, "A request with a body cannot ask for another protocol and for the connection's end.")

    def checked_target(self, version: str) -> bytes:
        """Check what few requests have, and return the target, with a path.

        RFC 9112 §3.2: one Host, which HTTP/1.0 may lack. Of `GET http://a/` and `Host: b`, one is wrong. §6.1: a body
        in another coding than `chunked` cannot be read.
        """
        if version not in {"1.0", "1.1"}:
            raise Refusal(400, "The version of HTTP is not supported.")
        codings = b",".join([value for name, value in self.fields if name == b"transfer-encoding"]).lower().split(b",")
        if len(codings) > 1 and codings[-1].strip() == b"chunked":
            raise Refusal(501, "This server supports no Transfer-Encoding but chunked.")
        hosts = [value for name, value in self.fields if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            raise Refusal(400, "The request must have one Host header.")
        if self.target.startswith((b"/", b"*")):
            return self.target
        scheme, _, rest = self.target.partition(b"://")
        authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
        if any(host.lower() != authority.lower() for host in hosts):
            raise Refusal(400, "The Host header and the request target name different hosts.")
        after = rest[len(authority) :]
        return self.target if after.startswith(b"/") else b"%s://%s/%s" % (scheme, authority, after)

    @property
    def upgrades_to_websocket(self) -> bool:
        """Whether Uvicorn will see the same: a GET without a body that asks for this protocol only."""
        named: dict[bytes, list[bytes]] = {}
        for name, value in self.fields:
            named.setdefault(name, []).append(value.lower())
        return (
            self.method == b"GET"
            and named[b"upgrade"] == [b"websocket"]
            and len(named[b"connection"]) == 1
            and not named.keys() & _FRAMING
        )

    def without_upgrade(self, version: str) -> bytes:
        """Return it as of a client that does not ask for another protocol (RFC 9110 §7.8)."""
        line = b"%s %s HTTP/%s" % (self.method, self.target, version.encode())
        fields = [b"%s: %s" % field for field in self.fields if field[0] != b"upgrade"]
        return b"\r\n".join([line, *fields]) + HEAD_END


def end_of_heads(data: bytes, start: int, stop: int, count: int) -> int:
    """The end of so many heads from `start` on, or else `stop`."""
    end = start
    for _ in range(count):
        found = data.find(HEAD_END, end, stop)
        end = stop if found < 0 else found + len(HEAD_END)
    return end
