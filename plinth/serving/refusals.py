"""What the server answers by itself to a request that it does not pass to the app, as problem details (RFC 9457)."""

import logging
import re
from http import HTTPStatus
from random import getrandbits

import orjson

_log = logging.getLogger(__name__)

# The titles in plinth/http/problems.py, with which a test compares these.
_TITLES = {414: "URI too long"}


class Refusal(Exception):  # noqa: N818 - the request is at fault
    """Why a request is refused. Raised in the parser's callbacks, it ends the parsing."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.request_id = f"{getrandbits(64):016x}"

    def log(self) -> None:
        details = {"status": self.status, "detail": self.detail, "id": self.request_id}
        _log.info("Refused a request with %(status)d: %(detail)s", details)

    def response(self, default_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the whole response, which ends the connection."""
        phrase = HTTPStatus(self.status).phrase
        title = _TITLES.get(self.status, phrase.capitalize())
        problem = {
            "type": f"urn:problem-type:{re.sub('[^a-z]+', '-', title.lower())}",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "request_id": self.request_id,
        }
        body = orjson.dumps(problem)
        fields = [
            *default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %s" % (self.status, phrase.encode()), *(b"%s: %s" % field for field in fields)]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body
