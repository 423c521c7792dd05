"""Secrets without content: refresh tokens, API keys, and links in mails. Only their hashes are stored."""

import hashlib
import re
import secrets

SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits


def new_secret(prefix: str) -> tuple[str, bytes]:
    """A random secret that begins with `prefix`, which lets scanners of source code recognise it, and its hash."""
    secret = f"{prefix}{secrets.token_urlsafe(32)}"
    return secret, hash_secret(secret)


def hash_secret(secret: str) -> bytes:
    """SHA-256. A slow hash would protect nothing: 256 random bits cannot be guessed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def has_form(secret: str, prefix: str) -> bool:
    """Whether it may be a secret of this prefix at all, and is worth a query."""
    return secret.startswith(prefix) and SECRET.fullmatch(secret, len(prefix)) is not None
