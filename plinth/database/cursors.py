"""Cursors of lists: opaque and versioned; signed where `DATABASE_CURSOR_KEY` is set."""

import hmac
from base64 import b64decode, urlsafe_b64encode

from pydantic import SecretStr

VERSION = b"\x01"
"""The format of what follows. A cursor of another version is refused, and its client starts from the first page."""
SIGNATURE_BYTES = 16


class Cursors:
    """Encodes the position of a row for a client. With a key, clients cannot make or edit cursors of their own."""

    def __init__(self, key: SecretStr | None = None) -> None:
        self._key = key.get_secret_value().encode() if key else None

    def encode(self, position: bytes) -> str:
        versioned = VERSION + position
        return urlsafe_b64encode(versioned + self._signature(versioned)).rstrip(b"=").decode()

    def decode(self, cursor: str) -> bytes:
        """Raises ValueError for anything but a cursor of this version, signed with the same key."""
        data = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        length = len(data) - (SIGNATURE_BYTES if self._key else 0)
        versioned, signature = data[:length], data[length:]
        if not hmac.compare_digest(signature, self._signature(versioned)) or versioned[:1] != VERSION:
            raise ValueError("not a cursor of this version and key")
        return versioned[1:]

    def _signature(self, versioned: bytes) -> bytes:
        return hmac.digest(self._key, versioned, "sha256")[:SIGNATURE_BYTES] if self._key else b""
