import json
import logging
import sys
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plinth.security.opaque import has_form
from plinth.telemetry.logs import JSONFormatter, TextFormatter
from plinth.telemetry.redaction import REDACTED, redact_json, redact_text

TOKEN = jwt.encode({"sub": "7"}, "k" * 32, algorithm="HS256")
OPAQUE = [f"{prefix}ZdHUwvhCQWLG6tVkvy6OTD1ifFtsFfT65f9F7cFgv7E" for prefix in ("key_", "refresh_", "")]
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ\n-----END PRIVATE KEY-----"
FORMATTERS = [JSONFormatter(), TextFormatter()]
CARDS = ["4111111111111111", "4111 1111 1111 1111", "5500-0055-5555-5559", "340000000000009"]


def record(message: object, *args: Any, extra: dict[str, Any] | None = None, error: Any = None) -> logging.LogRecord:
    return logging.getLogger("tests").makeRecord("tests", logging.INFO, "", 0, message, args, error, extra=extra)


@dataclass
class Account:
    password: str
    kept: str = "kept"


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize(
    "name",
    [
        *("password", "new_password", "newPassword", "Authorization", "Set-Cookie", "cookie", "X-API-Key", "apiKey"),
        *("refresh_token", "client_secret", "email", "customer_email", "phone_number", "card", "card-number", "iban"),
        *("secret_key", "aws_secret_access_key", "accessKey", "credentials", "session_id", "sessionId", "otp"),
    ],
)
def test_a_field_is_hidden_by_its_name(formatter: logging.Formatter, name: str) -> None:
    for extra in ({name: "hunter two"}, {"more": {"list": [{name: "hunter two"}]}}):
        line = formatter.format(record("x", extra=extra))
        assert "hunter" not in line
        assert "two" not in line
        assert REDACTED in line


@pytest.mark.parametrize(
    "name", ["tokens", "option", "wildcard", "discards", "headphones", "emailed", "passwordless", "keys"]
)
def test_other_names_are_shown(name: str) -> None:
    assert (
        json.loads(JSONFormatter().format(record("x", extra={name: "shown", "more": {name: "shown"}})))[name] == "shown"
    )


def test_nothing_is_left_where_nothing_is_hidden() -> None:
    line = json.loads(JSONFormatter().format(record("x", extra={"password": None, "account": Account("hunter2")})))
    assert line["password"] is None
    assert line["account"] == {"password": REDACTED, "kept": "kept"}


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {TOKEN}", TOKEN),
        ("authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("sent bearer abcdefgh.ijklmnop now", "abcdefgh.ijklmnop"),
        (f"The token {TOKEN} has expired", TOKEN),
        ("postgresql://me:p@ss@db.example.com/shop", "p@ss"),
        ("redis://:hunter2@cache:6379/0", "hunter2"),
        ("GET /verify?next=/&token=hunter2&page=3", "hunter2"),
        ("Cookie: session=hunter2; theme=dark", "hunter2"),
        ("Account(password=\"it's hunter2\", name='Ann')", "hunter2"),
        ("{'name': 'Ann', 'password': 'hunter2'}", "hunter2"),
        ('{"name": "Ann", "password": "hunter2 and more"}', "hunter2 and more"),
        ("login failed, password: hunter2", "hunter2"),
        ("user: ann\npassword: hunter2\nport: 5432", "hunter2"),
        ("X-API-Key: hunter2", "hunter2"),
        ("password: \\hunter\\2", "unter"),
        ("(refresh_token: hunter2, 3 attempts)", "hunter2"),
        (f"cannot parse {PRIVATE_KEY}", "MC4CAQAw"),
        (PRIVATE_KEY[:50], "MC4CAQAw"),
        ("no account of ann.lee+shop@mail.example.com", "ann.lee"),
        ("$argon2id$v=19$m=65536,t=3$c2FsdA$aGFzaA", "c2FsdA"),
        *((f"Paid by {card}.", card) for card in CARDS),
        *((f"Key {secret} is unknown", secret) for secret in OPAQUE),
    ],
)
def test_a_secret_is_removed_wherever_it_is(formatter: logging.Formatter, text: str, secret: str) -> None:
    try:
        raise ValueError(f"In the first line\n{text}\nAnd after it")
    except ValueError:
        error = sys.exc_info()
    for entry in (
        record(text),
        record("Failed: %s", text),
        record("x", extra={"more": text}),
        record("x", extra={"more": {"list": [text]}}),
        record("x", error=error),
    ):
        line = formatter.format(entry)
        assert secret not in line
        assert REDACTED in line


def test_these_are_the_forms_of_the_services_secrets() -> None:
    assert all(has_form(secret, secret[:-43]) for secret in OPAQUE)


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/products/4111111111111112 200",
        "1764481222123456 3fb1c9b2-6f1e-4a11-8a4e-6ed2f1a51b6d 4bf92f3577b34da6a3ce929d0e0e4736",
        "AUTH_PREVIOUS_KEY: is under 32 bytes",
        "METRICS_TOKEN: missing",
        "unexpected token: the parser expects a name",
        "SELECT users.id FROM users WHERE users.email = $1 AND tokens > 3",
        "Basic authentication or a bearer token is needed",
        "The worker's token bucket is empty: it's refilled",
        "http://127.0.0.1:8000/path",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert redact_text(text) == text
    assert json.loads(JSONFormatter().format(record("%s", text)))["message"] == text


any_text = st.text(st.characters(exclude_categories=()))
piece = st.sampled_from(
    [
        "password",
        "token",
        "'",
        '"',
        "\\",
        "=",
        ": ",
        "hunter2",
        "METRICS_",
        PRIVATE_KEY,
        "authorization",
        "e",
        *OPAQUE,
        "\n",
        "\x0e",
        "ann@example.com",
        "://a:b@",
        TOKEN,
        "Bearer ",
        *CARDS,
    ]
)
pieces = st.lists(piece, max_size=8).map("".join)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.sampled_from([int(CARDS[0]), 4111111111111111.0]) | pieces | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(pieces | any_text, inner),
)


@given(texts=st.lists(piece | any_text), value=anything)
@example(texts=["\n", "ann@example.com"], value={"card": 1, "x": [{"email": None}, int(CARDS[0])]})
def test_a_line_is_json_whatever_is_removed_from_it(texts: list[str], value: Any) -> None:
    line = JSONFormatter().format(record("".join(texts), extra={"value": value}))
    assert json.loads(line)["logger"] == "tests"
    assert "\n" not in line
    assert "ann@example.com" not in line
    assert TextFormatter().format(record("".join(texts), extra={"value": value})).encode()


@given(text=pieces | any_text, value=anything)
def test_what_is_passed_over_has_nothing_to_remove(text: str, value: Any) -> None:
    """Most lines are: the patterns would take longer than all else that is done for a line."""
    line = json.dumps({"logger": "tests", "text": text, "value": value}, ensure_ascii=False, separators=(",", ":"))
    line = line.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    short = redact_text(text), json.loads(redact_json(line.encode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plinth.telemetry.redaction._has_sign", lambda *_: True)
        assert (redact_text(text), json.loads(redact_json(line.encode()))) == short
