"""Settings of tokens: `AUTH_ALGORITHM` is `settings.auth.algorithm`, and so on."""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator


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
        if value and not value.startswith(("https://", "http://localhost", "http://127.0.0.1")):
            raise ValueError("must begin with https://")
        return value

    @property
    def trusted(self) -> frozenset[str]:
        """The scopes that tokens of the trusted issuer may have."""
        return frozenset(scope for each in self.trusted_scopes.split(",") if (scope := each.strip()))

    def production_faults(self) -> Iterator[str]:
        """Yield a sentence for each setting that is not allowed in production; it begins with the variable's name."""
        if self.trusted_issuer.startswith("http://"):
            yield "AUTH_TRUSTED_ISSUER: must begin with https:// in production"
