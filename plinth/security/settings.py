"""Settings of tokens and limits: `AUTH_ALGORITHM` is `settings.auth.algorithm`, and so on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from limits import parse_many
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

FORM = "must look like `600/minute` or `20 per 5 minutes`; `off` is no limit"
MOST_REQUESTS, MOST_DAYS = 10**9, 31

# An issuer as OpenID Connect Discovery has it; without TLS on this machine only, which production refuses.
TRUSTED = re.compile(r"(https://[A-Za-z0-9.-]+|http://(localhost|127\.0\.0\.1))(:[0-9]{1,5})?(/[^\s?#@]*)?")


class AuthSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, hide_input_in_errors=True)

    algorithm: Literal["HS256", "EdDSA"] = Field(
        "HS256", description="Signs access tokens: HS256 with APP_SECRET_KEY, EdDSA with AUTH_PRIVATE_KEY."
    )
    private_key: SecretStr | None = Field(None, description="Ed25519 key in PEM, for EdDSA.")
    previous_key: SecretStr | None = Field(
        None, description="The key before the present one, whose tokens are valid until they expire."
    )
    issuer: str = Field("", description="`iss` of the tokens. Unset: the service's name.")
    audience: str = Field("", description="`aud` of the tokens, and of those of the trusted issuer. Unset: the same.")
    access_seconds: int = Field(900, ge=30, le=86_400, description="How long an access token is valid.")
    refresh_seconds: int = Field(
        2_592_000, ge=3600, le=31_536_000, description="How long a session lasts after its last use."
    )
    trusted_issuer: str = Field(
        "", description="URL of an OpenID provider whose tokens are accepted too; its keys are found by discovery."
    )
    trusted_scopes: str = Field(
        "", description="Scopes that tokens of the trusted issuer may have, comma-separated. Unset: none."
    )
    most_waiting: int = Field(
        32, ge=1, le=10_000, description="Passwords that a process verifies or hashes at once; more are answered 503."
    )

    @field_validator("trusted_issuer")
    @classmethod
    def _check_trusted_issuer(cls, value: str) -> str:
        if value and not TRUSTED.fullmatch(value):
            raise ValueError("must be an https URL without a name, a query and a fragment")
        return value

    @property
    def trusted(self) -> frozenset[str]:
        """The scopes that tokens of the trusted issuer may have."""
        return frozenset(scope for each in self.trusted_scopes.split(",") if (scope := each.strip()))

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if self.trusted_issuer.startswith("http://"):
            yield "AUTH_TRUSTED_ISSUER: must begin with https:// in production"


@dataclass(frozen=True, slots=True)
class Limit:
    amount: int
    seconds: int


def parse_limit(text: str) -> Limit | None:
    """Parse `600/minute`; None for `off`. Raises ValueError with a sentence."""
    if text.strip().lower() in {"", "off"}:
        return None
    try:
        [item] = parse_many(text)
    except ValueError:
        raise ValueError(FORM) from None
    if not 0 < item.amount <= MOST_REQUESTS or not 0 < item.get_expiry() <= MOST_DAYS * 86_400:
        raise ValueError(f"{FORM}; from 1 to {MOST_REQUESTS} requests, in at most {MOST_DAYS} days")
    return Limit(item.amount, item.get_expiry())


def _checked(text: str) -> str:
    parse_limit(text)
    return text


LimitText = Annotated[str, AfterValidator(_checked)]


class LimitSettings(BaseModel):
    auth: LimitText = Field(
        "20/minute", description="Most requests to sign in, and the like, from one address; `off` is no limit."
    )
    writes: LimitText = Field("600/minute", description="Most changes by one client.")
    reads: LimitText = Field("6000/minute", description="Most GETs from one address.")

    @property
    def parsed(self) -> dict[str, Limit | None]:
        return {name: parse_limit(getattr(self, name)) for name in type(self).model_fields}
