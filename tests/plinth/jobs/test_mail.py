"""Mails go to a real SMTP server, and what arrives is parsed again."""

import asyncio
import email
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from pydantic import BaseModel, SecretStr, ValidationError

from plinth.errors import ConfigurationError
from plinth.jobs import GiveUp, Mailer, MailSettings, open_mailer
from plinth.jobs.mail import PermanentMailError

SENDER = "shop@mail.example.com"
ID = UUID("0198c0de-0000-7000-8000-000000000001")


class Inbox:
    """A handler of aiosmtpd that keeps what arrives, and refuses by the name of the recipient."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.users: list[bytes] = []
        self.recipients: list[str] = []

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        user = address.partition("@")[0]
        if user.isdecimal():
            return f"{user} refused"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.recipients += envelope.rcpt_tos
        if "spam" in message["Subject"]:
            return "554 not wanted"
        return "250 OK"

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login)
        return AuthResult(success=data.password == b"right", handled=False)


@asynccontextmanager
async def smtp_server(
    inbox: Inbox, tls: ssl.SSLContext | None = None, *, implicit: bool = False, login: bool = False
) -> AsyncIterator[int]:
    def connection() -> SMTP:
        return SMTP(
            inbox,
            hostname="localhost",
            tls_context=None if implicit else tls,
            require_starttls=tls is not None and not implicit,
            authenticator=inbox.login if login else None,
            auth_required=login,
            auth_require_tls=not implicit,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connection, "127.0.0.1", 0, ssl=tls if implicit else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, signed, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, "-keyout", key, "-out", signed], check=True, capture_output=True)
    both.write_text(key.read_text() + signed.read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "welcome.txt").write_text("Subject: Welcome, {{ name }}\n\nHello {{ name }}!\n")
    (folder / "welcome.html").write_text("<p>Hello {{ name }}!</p>\n")
    (folder / "plain.txt").write_text("Subject: {{ name }}\n\n{{ name }}\n")
    (folder / "headless.txt").write_text("Hello\n")
    return folder


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


Open = Callable[..., Any]


@pytest.fixture
def opened(templates: Path) -> Open:
    def open_it(port: int, **changes: Any) -> Any:
        values = {"backend": "smtp", "host": "localhost", "port": port, "sender": SENDER, "tls": "none"} | changes
        return open_mailer(MailSettings(**values), templates)

    return open_it


class Welcome(BaseModel):
    name: str


async def test_a_mail_arrives_with_its_headers_and_both_bodies(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port, opened(port, sender_name="Der Lädeli-Shop") as mailer:
        values = Welcome(name="Zoë & <b>O'Neil</b>")
        await mailer.send("welcome", to="ada@example.com", name="Àda, Countess", message_id=ID, values=values)
        await mailer.send("welcome", to="ada@example.com", message_id=ID, values={"name": "again"})
    mail, again = inbox.mails
    assert mail["Subject"] == "Welcome, Zoë & <b>O'Neil</b>"
    assert mail["From"] == f"Der Lädeli-Shop <{SENDER}>"
    assert mail["To"] == "Àda Countess <ada@example.com>"
    assert mail["Message-ID"] == again["Message-ID"] == f"<{ID}@mail.example.com>"
    assert mail["Date"].datetime.tzinfo is not None
    text, page = mail.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(page, EmailMessage)
    assert text.get_content().strip() == "Hello Zoë & <b>O'Neil</b>!"
    assert page.get_content().strip() == "<p>Hello Zoë &amp; &lt;b&gt;O&#39;Neil&lt;/b&gt;!</p>"


async def test_a_template_without_html_sends_text_alone(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port, opened(port) as mailer:
        await mailer.send("plain", to="ada@example.com", message_id=ID, values={"name": "one\r\n.\r\ntwo"})
    assert inbox.mails[0].get_content_type() == "text/plain"
    assert inbox.mails[0].get_content().splitlines() == ["one", ".", "two"]


async def test_what_a_template_lacks_is_an_error(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port, opened(port) as mailer:
        with pytest.raises(UndefinedError, match="name"):
            await mailer.send("welcome", to="ada@example.com", message_id=ID, values={})
        with pytest.raises(ValueError, match="its first line must be `Subject"):
            await mailer.send("headless", to="ada@example.com", message_id=ID, values={})
    assert inbox.mails == []


HEADERS = ["Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To"]
HOSTILE = st.lists(
    st.one_of(
        st.text(st.characters(codec=None), max_size=60),
        st.sampled_from(
            ["\r\nBcc: eve@example.com", "\n\n", "\r", "\x00", "\x85", "\u2028", "=?utf-8?q?=0D=0ABcc:_e?="]
        ),
        st.sampled_from(
            [
                "\r\n.\r\n",
                "MAIL FROM:<a@b>",
                '"',
                "\\",
                "<eve@example.com>",
                ",",
                ";",
                "ü" * 80,
                "--=====",
                ".",
                "x" * 90,
            ]
        ),
    ),
    max_size=6,
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=HOSTILE, name=HOSTILE, sender_name=HOSTILE)
@example(value="", name="x" * 90 + "(" + "x" * 40 + "=" + "x" * 40, sender_name="." + "x" * 40 + ";" + "x" * 40)
def test_no_value_adds_a_header_a_recipient_or_a_part(opened: Open, value: str, name: str, sender_name: str) -> None:
    inbox = Inbox()

    async def send() -> None:
        async with smtp_server(inbox) as port, opened(port, sender_name=sender_name) as mailer:
            await mailer.send("welcome", to="ada@example.com", name=name, message_id=ID, values={"name": value})

    asyncio.run(send())
    (mail,) = inbox.mails
    assert sorted(mail.keys()) == HEADERS
    assert inbox.recipients == ["ada@example.com"]
    assert [each.addr_spec for each in mail["To"].addresses] == ["ada@example.com"]
    assert [each.addr_spec for each in mail["From"].addresses] == [SENDER]
    assert mail["Subject"].lstrip().startswith("Welcome,")  # a long one is folded before its first word
    assert not any(char in mail["Subject"] for char in "\r\n\0")
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert all(
        sorted(part.keys()) == ["Content-Transfer-Encoding", "Content-Type", "MIME-Version"][: len(part.keys())]
        for part in mail.iter_parts()
    )
    assert mail.defects == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hostile=HOSTILE.filter(bool), message_id=st.one_of(st.uuids(), HOSTILE))
def test_an_address_or_an_id_that_is_not_one_is_refused(opened: Open, hostile: str, message_id: Any) -> None:
    async def send(**values: Any) -> None:
        async with opened(1, backend="file") as mailer:
            await mailer.send("plain", values={"name": "x"}, **values)

    for address in (f"ada@example.com{hostile}", f"{hostile}@example.com,eve@example.com", f"{hostile} <a@b.example>"):
        if not address.removeprefix("ada@example.com").replace(".", "").replace("-", "").isalnum():
            with pytest.raises(PermanentMailError, match="must be one address"):
                asyncio.run(send(to=address, message_id=ID))
    try:
        UUID(str(message_id))
    except ValueError:
        with pytest.raises(ValueError, match=r"UUID|int\(\)"):
            asyncio.run(send(to="ada@example.com", message_id=message_id))


async def send_one(mailer: Mailer, to: str = "ada@example.com", name: str = "x") -> None:
    await mailer.send("plain", to=to, message_id=uuid4(), values={"name": name})


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd does not know of the TLS below it
@pytest.mark.parametrize("kind", ["starttls", "implicit"])
async def test_tls_with_a_login(kind: str, inbox: Inbox, opened: Open, tls: ssl.SSLContext, certificate: Path) -> None:
    login = {"tls": kind, "ca_file": certificate, "user": "shop"}
    async with smtp_server(inbox, tls, implicit=kind == "implicit", login=True) as port:
        async with opened(port, password=SecretStr("right"), **login) as mailer:
            await send_one(mailer)
        assert (len(inbox.mails), inbox.users) == (1, [b"shop"])
        async with opened(port, password=SecretStr("wrong"), **login) as mailer:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                await send_one(mailer)
        async with opened(port, tls=kind, ca_file=certificate) as mailer:
            with pytest.raises(aiosmtplib.SMTPException):
                await send_one(mailer)
    assert len(inbox.mails) == 1


@pytest.mark.parametrize("kind", ["starttls", "implicit"])
async def test_a_certificate_that_is_not_trusted_is_refused(
    kind: str, inbox: Inbox, opened: Open, tls: ssl.SSLContext, certificate: Path
) -> None:
    async with smtp_server(inbox, tls, implicit=kind == "implicit") as port:
        for changes in ({}, {"ca_file": certificate, "host": "127.0.0.1"}):  # unknown authority; another name
            async with opened(port, tls=kind, **changes) as mailer:
                with pytest.raises((aiosmtplib.SMTPException, OSError), match=r"(?i)certificate"):
                    await send_one(mailer)
    assert inbox.mails == []


async def test_a_server_without_starttls_gets_no_mail(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port, opened(port, tls="starttls") as mailer:
        with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
            await send_one(mailer)
    assert inbox.mails == []


async def test_which_refusals_are_permanent(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port, opened(port) as mailer:
        with pytest.raises(PermanentMailError, match="The recipient was refused: 550") as refused:
            await send_one(mailer, to="550@example.com")
        assert isinstance(refused.value, GiveUp)
        with pytest.raises(PermanentMailError, match="The mail was refused: 554"):
            await send_one(mailer, name="spam")
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await send_one(mailer, to="450@example.com")


async def test_a_server_that_is_away_or_silent_is_worth_another_attempt(inbox: Inbox, opened: Open) -> None:
    async with smtp_server(inbox) as port:
        pass
    async with opened(port) as mailer:
        with pytest.raises(aiosmtplib.SMTPConnectError):
            await send_one(mailer)
    silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with silent, opened(silent.sockets[0].getsockname()[1], timeout_seconds=0.05) as mailer:
        with pytest.raises(aiosmtplib.SMTPTimeoutError):
            await send_one(mailer)


async def test_development_writes_a_file_for_each_mail_and_one_for_its_retries(
    tmp_path: Path, templates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "mails"
    async with open_mailer(MailSettings(backend="file", folder=folder), templates) as mailer:
        for name in ("first", "second"):
            await mailer.send("plain", to="ada@example.com", message_id=ID, values={"name": name})
    (file,) = folder.iterdir()
    mail = email.message_from_bytes(file.read_bytes(), policy=default)
    assert (file.name, mail["Subject"], mail["From"]) == (f"{ID}.eml", "second", "service@localhost")
    async with open_mailer(MailSettings(backend="console"), templates) as mailer:
        await mailer.send("plain", to="ada@example.com", message_id=ID, values={"name": "shown"})
    assert "Subject: shown" in capsys.readouterr().out


async def test_smtp_needs_a_host_and_a_sender(templates: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MAIL_HOST: is missing.*\nMAIL_SENDER: is missing"):
        async with open_mailer(MailSettings(backend="smtp"), templates) as mailer:
            await send_one(mailer)
    with pytest.raises(ValidationError, match="must be one address"):
        MailSettings(sender="Shop <shop@example.com>")


def test_what_production_refuses() -> None:
    def faults(**changes: Any) -> list[str]:
        return [fault.partition(":")[0] for fault in MailSettings(**changes).production_faults()]

    good = {"host": "smtp.example.com", "sender": SENDER}
    assert faults() == []  # it sends no mail
    assert faults(**good) == faults(**good, tls="none", allow_plaintext=True) == []
    assert faults(host="localhost", sender=SENDER, tls="none") == []
    assert faults(**good, tls="none") == ["MAIL_TLS"]
    assert faults(**good, backend="file") == ["MAIL_BACKEND"]
    assert faults(backend="smtp") == ["MAIL_HOST", "MAIL_SENDER"]
