"""Settings of mail: `MAIL_HOST` is `settings.mail.host`, and so on."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FilePath, SecretStr

# What every server accepts: https://html.spec.whatwg.org/#valid-e-mail-address, within the lengths of RFC 5321.
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ADDRESS = re.compile(rf"(?=.{{1,254}}\Z)[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{LABEL}(?:\.{LABEL})*")
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}


def mail_address(text: str) -> str:
    """Return the address. Raises ValueError unless it is exactly one, in ASCII."""
    if not ADDRESS.fullmatch(text):
        raise ValueError("must be one address, such as ada@example.com, in ASCII and without a name")
    return text


class MailSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    backend: Literal["smtp", "file", "console"] | None = Field(
        None, description="Where mails go: smtp, file or console. Unset: smtp in production, else file."
    )
    folder: Path = Field(Path(".data/mails"), description="Where `file` writes each mail as an .eml file.")
    sender: Annotated[str, AfterValidator(lambda text: mail_address(text) if text else text)] = Field(
        "", description="Address that mails are from; its domain is that of their Message-ID."
    )
    sender_name: str = Field("", description="Name shown beside it.")
    host: str = Field("", description="The SMTP server.")
    port: int | None = Field(
        None, ge=1, le=65535, description="Its port. Unset: 587; 465 for implicit TLS, 25 for none."
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="TLS of the connection: starttls, implicit or none."
    )
    ca_file: FilePath | None = Field(
        None, description="Certificates of the authorities to trust. Unset: those of the system."
    )
    user: str = Field("", description="User at the SMTP server; without one, there is no login.")
    password: SecretStr | None = Field(None, description="Password of this user.")
    timeout_seconds: float = Field(10.0, gt=0, le=86_400, description="Longest wait for one answer of the server.")
    allow_plaintext: bool = Field(False, description="Let production send without TLS to a host that is not local.")

    def missing(self) -> Iterator[str]:
        """What SMTP cannot do without, a sentence each that begins with the variable."""
        if not self.host:
            yield "MAIL_HOST: is missing; set it to the name of the SMTP server"
        if not self.sender:
            yield "MAIL_SENDER: is missing; set it to the address that mails are from"

    def production_faults(self) -> Iterator[str]:
        """What must not be so in production. A service that sets nothing of this sends no mail."""
        if not self.model_fields_set:
            return
        if self.backend not in {None, "smtp"}:
            yield "MAIL_BACKEND: must be smtp in production"
        yield from self.missing()
        if self.tls == "none" and self.host not in LOCAL_HOSTS and not self.allow_plaintext:
            yield (
                "MAIL_TLS: must be starttls or implicit, or set MAIL_ALLOW_PLAINTEXT=true where the network is private"
            )
