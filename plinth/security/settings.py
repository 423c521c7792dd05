"""Settings of tokens: `AUTH_ALGORITHM` is `settings.auth.algorithm`, and so on."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

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
        "", description="Scopes that tokens of the trusted issuer may have, comma-separated. Unset: those of a user."
    )

    @field_validator("trusted_issuer")
    @classmethod
    def _check_trusted_issuer(cls, value: str) -> str:
        if value and not TRUSTED.fullmatch(value):
            raise ValueError("must be an https URL without a name, a query and a fragment")
        return value

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if self.trusted_issuer.startswith("http://"):
            yield "AUTH_TRUSTED_ISSUER: must begin with https:// in production"
