"""Removes secrets and personal data from log lines, by the names of fields and by the patterns of texts."""

import json
import re
import string
from collections.abc import Callable
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

# `password`, `new_password` and `newPassword`; `token`, but not `tokens`, which is usually a count.
_CREDENTIAL = (
    r"(?:passw(?:or)?ds?|passphrase|pwd|secrets?|token|(?:api|access|private|secret)[_-]?key|authorization|cookies?"
    r"|credentials?|session[_-]?id|otp)"
)
_PERSONAL = r"(?:e?mail(?:[_-]?address)?|phone(?:[_-]?number)?|card(?:[_-]?number)?|iban|cvv|cvc|ssn)"
_NAME = rf"(?:{_CREDENTIAL}(?:[_-]?hash)?|(?<![a-z]){_PERSONAL})"
_FIELD = re.compile(rf"{_NAME}\Z", re.IGNORECASE)
# `password: value`, but not `AUTH_PASSWORD: value`, as a sentence about a setting begins.
_LABEL = rf"(?<![A-Z]_)(?i:{_NAME}): "
# Visa, Mastercard, American Express, Discover, Diners Club.
_CARD = re.compile(r"(?<![\w.-])(?:4\d|5[1-5]|2[2-7]|6[05]|3[0478])\d\d(?:[ -]?\d{4,6}){2}(?:[ -]?\d{3,4})?(?![\w-])")

# A text without these, and a line of JSON, in which a backslash precedes each quote of a text, has rarely anything.
_PLAIN_TEXT = bytes({*range(256)} - {*b"@='$\""})
_PLAIN_JSON = bytes({*range(256)} - {*b"@='$\\"})
_OBJECT = b'{"'
_LOWER = bytes.maketrans((string.ascii_uppercase + "123456789").encode(), (string.ascii_lowercase + "0" * 9).encode())
_CARD_LENGTH = b"0" * 14
_WORD = bytes.maketrans((string.ascii_letters + string.digits + "_-").encode(), b"x" * 64)
_SECRET_LENGTH = b"x" * 43  # of 256 bits in base64
_LABEL_BYTES = re.compile(_LABEL.encode())


def _without_card(found: re.Match[str]) -> str:
    """Luhn's check (ISO/IEC 7812) is passed by every card number, and by one in ten other numbers."""
    digits = [int(character) for character in reversed(found[0]) if character.isdigit()]
    total = sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return found[0] if total % 10 or not 14 <= len(digits) <= 16 else REDACTED


_PATTERNS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    # The password in a URL, up to the last `@` before the path, since one in the password may not be encoded.
    (re.compile(r"(://[^\s/:@]*:)[^\s/\"']+@"), rf"\1{REDACTED}@"),
    # Headers, up to the end of their line.
    (re.compile(r"\b((?:authorization|cookie)\s*:\s*)[^\s\"'\[][^\r\n\"']*", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer\s+)[\w.~+/-]{16,}=*", re.IGNORECASE), rf"\1{REDACTED}"),
    # `"name": "value"`, `'name': 'value'` and `name='value'`, as in JSON and in the form of `repr`.
    (re.compile(rf"""({_NAME}(?:["']\s*:|\s?=)\s*b?(["']))(?:(?!\2)[^\\]|\\.)*""", re.I | re.S), rf"\1{REDACTED}"),
    # `name=value`, as in a query string.
    (re.compile(rf"({_NAME}=)[^\s\"'&,;(){{}}\[\]]+", re.IGNORECASE), rf"\1{REDACTED}"),
    # `name: value`, as in YAML and in headers. Where more words follow without a comma, it is a sentence.
    (
        re.compile(
            rf"""({_LABEL})(?:[^\s"'\\,;(){{}}\[\]]|\\[^nrt"'])+(?=["'\\,;)}}\]]|\s*$)""", re.ASCII | re.MULTILINE
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), REDACTED),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), REDACTED),  # a JSON Web Token
    # The service's own refresh tokens, API keys and links: see plinth/security/opaque.py.
    (re.compile(r"(?<![\w-])(?:[a-z]+_)?(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{43}(?![\w-])", re.ASCII), REDACTED),
    (re.compile(r"\$argon2\w*\$[^\s\"']+"), REDACTED),
    (re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"), REDACTED),  # an e-mail address
    (_CARD, _without_card),
]


def redact_text(text: str) -> str:
    """Return the text without what looks like a secret, an e-mail address or the number of a card."""
    if _has_sign(text.encode("utf-8", "surrogatepass"), _PLAIN_TEXT):
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    return text


def redact_json(line: bytes) -> str:
    """Return a line of JSON with `redact_text` applied to all its texts, and without the values of sensitive fields.

    It is parsed for that, so that the result is always valid JSON. Most lines have no sign of a secret, and
    are returned as they are.
    """
    if not _has_sign(line, _PLAIN_JSON):
        return line.decode()
    return json.dumps(_redacted(json.loads(line)), separators=(",", ":"))


def _has_sign(text: bytes, plain: bytes) -> bool:
    """Return whether the text may hold anything to redact, in a hundredth of the time that the patterns take."""
    if text.translate(None, plain) or text.find(_OBJECT, 1) > 0 or b"-----BEGIN " in text:
        return True
    if b": " in text and _LABEL_BYTES.search(text):
        return True
    lower = text.translate(_LOWER, b" -")
    if b"bearer" in lower or b"authorization:" in lower or _CARD_LENGTH in lower:
        return True
    return _SECRET_LENGTH in text.translate(_WORD)


@lru_cache(1000)
def is_sensitive(name: object) -> bool:
    """Return whether a field of this name holds a secret or personal data."""
    return isinstance(name, str) and _FIELD.search(name) is not None


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    if isinstance(value, dict):
        return {
            redact_text(name): REDACTED if is_sensitive(name) and inner is not None else _redacted(inner)
            for name, inner in value.items()
        }
    return value
