"""Mails, made of the service's templates. Tasks send them, so that a failed attempt is repeated by the queue.

`welcome.txt` begins with the line `Subject: …`, and the text follows; `welcome.html` beside it is optional.
"""

import sys
import unicodedata
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
from pydantic import BaseModel

from plinth.errors import ConfigurationError
from plinth.jobs.declarations import GiveUp
from plinth.jobs.mail_settings import MailSettings, mail_address

PORTS = {"starttls": 587, "implicit": 465, "none": 25}
DEVELOPMENT_SENDER = "service@localhost"
# Each of these has a meaning in an address header, and `email` does not quote all of them where it folds a long name.
LONGEST_WORD = 60  # characters
NAME_SPECIALS = str.maketrans(dict.fromkeys('"\\<>()[]:;,@', " "))


class PermanentMailError(GiveUp):
    """The mail cannot be delivered, however often it is sent."""


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates have no encoding


def _line(text: str) -> str:
    """One line: control characters and line separators become spaces, so that no value begins another header."""
    spaced = "".join(" " if unicodedata.category(char) in {"Cc", "Zl", "Zp"} else char for char in _text(text))
    words = spaced.replace("=?", "= ?").split()  # `=?` would begin an encoded word, which is decoded
    # Where a word is longer than a line, Python may write an empty line, which ends the headers.
    return " ".join(word[:LONGEST_WORD] for word in words)


def _address(address: str, name: str) -> Address:
    # A dot may not come first without quotes, which are lost where the header is folded.
    return Address(_line(name.translate(NAME_SPECIALS)).lstrip(". "), addr_spec=address)


class Mailer:
    """Renders templates and sends them. `open_mailer` makes it."""

    def __init__(self, settings: MailSettings, templates: Path) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

        self._settings = settings
        self._sender = settings.sender or DEVELOPMENT_SENDER
        self._folder = templates
        self._templates = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(["html"], default_for_string=False),
            undefined=StrictUndefined,
        )

    async def send(
        self, template: str, *, to: str, message_id: UUID, values: Mapping[str, Any] | BaseModel, name: str = ""
    ) -> None:
        """Send a mail to one address, `name` shown beside it. The same `message_id` marks a repeated mail as the same.

        Raises PermanentMailError where no other attempt can succeed, and ConfigurationError where the settings lack the
        server or the sender. All other errors are worth another attempt.
        """
        if self._settings.backend == "smtp" and (faults := [*self._settings.missing()]):
            raise ConfigurationError("\n".join(faults))
        try:
            mail_address(to)
        except ValueError as error:
            raise PermanentMailError(f"The recipient {error}.") from None
        message = self._render(template, dict(values))
        message["From"] = _address(self._sender, self._settings.sender_name)
        message["To"] = _address(to, name)
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{UUID(str(message_id))}@{self._sender.rpartition('@')[2]}>"
        content = message.as_bytes()
        match self._settings.backend:
            case "smtp":
                await self._deliver(to, content)
            case "console":
                sys.stdout.write(f"{content.decode()}\n")
            case _:
                folder = anyio.Path(self._settings.folder)
                await folder.mkdir(parents=True, exist_ok=True)
                await (folder / f"{UUID(str(message_id))}.eml").write_bytes(content)

    def _render(self, template: str, values: dict[str, Any]) -> EmailMessage:
        # Divided before values are filled in: a line break in one stays within the subject.
        subject, _, text = (self._folder / f"{template}.txt").read_text("utf-8").partition("\n")
        if not subject.startswith("Subject:"):
            raise ValueError(f"{template}.txt: its first line must be `Subject: …`")
        message = EmailMessage(policy=SMTP_POLICY)
        message["Subject"] = _line(self._templates.from_string(subject.removeprefix("Subject:")).render(values))
        plain = self._templates.from_string(text.lstrip("\n")).render(values)
        message.set_content(_text(plain), cte="quoted-printable")
        if (self._folder / f"{template}.html").exists():
            page = self._templates.get_template(f"{template}.html")
            message.add_alternative(_text(page.render(values)), subtype="html", cte="quoted-printable")
        return message

    async def _deliver(self, to: str, content: bytes) -> None:
        import aiosmtplib

        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port or PORTS[settings.tls],
            use_tls=settings.tls == "implicit",
            start_tls=settings.tls == "starttls",
            cert_bundle=str(settings.ca_file) if settings.ca_file else None,
            username=settings.user or None,
            password=settings.password.get_secret_value() if settings.user and settings.password else None,
            timeout=settings.timeout_seconds,
        )
        try:
            async with client:
                await client.sendmail(self._sender, [to], content)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            if refused.code >= 500:
                raise PermanentMailError(f"The recipient was refused: {refused.code} {refused.message}") from error
            raise
        except aiosmtplib.SMTPDataError as error:
            if error.code >= 500:
                raise PermanentMailError(f"The mail was refused: {error.code} {error.message}") from error
            raise


@asynccontextmanager
async def open_mailer(settings: MailSettings, templates: Path) -> AsyncIterator[Mailer]:
    """Open the mailer for the length of a block."""
    yield Mailer(settings, templates)
