from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.schemas.base import RequestSchema
from app.schemas.types import Text
from app.schemas.users import Address, Name

Password = Annotated[Text, Field(max_length=1000)]
# What plinth.security accepts is checked there, where also the account is known.
NewPassword = Annotated[
    Text,
    Field(
        json_schema_extra={"minLength": 10, "maxLength": 128},
        description="Not one of the first to be guessed, nor the name or the address of the account.",
        examples=["correct horse battery"],
    ),
]
Secret = Annotated[Text, Field(max_length=100)]


class Registration(RequestSchema):
    email: Address
    password: NewPassword
    name: Name


class Registered(BaseModel):
    """The same whether or not there was an account already: only the mail says so."""

    email: str
    name: str


class Credentials(RequestSchema):
    email: Address
    password: Password


class PasswordForm(RequestSchema):
    """The form of OAuth 2's password flow (RFC 6749 §4.3.2). All but the first three fields are ignored."""

    username: Address
    password: Password
    grant_type: Literal["password"] = "password"
    scope: Text = ""
    client_id: Text = ""
    client_secret: Text = ""


class TokenPair(BaseModel):
    access_token: str
    refresh_token: str = Field(description="To be exchanged once for the next pair, before it expires.")
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - no secret
    expires_in: int = Field(description="Seconds for which the access token is valid.")


class Refresh(RequestSchema):
    refresh_token: Secret


class Logout(RequestSchema):
    all: bool = Field(False, description="End the sessions of all devices, and not only this one.")


class MailedToken(RequestSchema):
    token: Secret = Field(description="Of the link in the mail.")


class PasswordForgotten(RequestSchema):
    email: Address


class PasswordReset(RequestSchema):
    token: Secret = Field(description="Of the link in the mail.")
    password: NewPassword


class PasswordChange(RequestSchema):
    current_password: Password
    new_password: NewPassword


class KeySet(BaseModel):
    """Public keys (RFC 7517), to verify access tokens with. Empty where they are signed with a secret."""

    keys: list[dict[str, str]]
