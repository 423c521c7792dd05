"""The head of a request, its request line and header block: its limits, and the protocol that it may ask for."""

from typing import NamedTuple

from plinth.serving.refusals import Refusal

MAX_REQUEST_LINE = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADER_FIELDS = 100
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

    def check_method(self) -> None:
        if self.method == b"CONNECT":  # what follows is not HTTP
            raise Refusal(501, "This server is not a proxy.")

    def check_no_body(self) -> None:
        """httptools parses nothing after a head that ends the connection, not even a body after an `Upgrade`."""
        if any(name in _FRAMING for name, _ in self.fields):
            raise Refusal(400, "A request with a body cannot ask for another protocol and for the connection's end.")

    def check_host(self, version: str) -> None:
        """RFC 9112 §3.2: one Host, which HTTP/1.0 may lack. Of `GET http://a/` and `Host: b`, one is wrong."""
        hosts = [value for name, value in self.fields if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            raise Refusal(400, "The request must have one Host header.")
        if not self.target.startswith((b"/", b"*")):
            authority = self.target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
            if any(host.lower() != authority.lower() for host in hosts):
                raise Refusal(400, "The Host header and the request target name different hosts.")

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
