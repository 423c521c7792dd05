from typing import Annotated

from fastapi import APIRouter, Form, status

from app.access import (
    AUTH_LIMIT,
    NO_STORE,
    AccountServiceDep,
    DeviceDep,
    LoginServiceDep,
    RefreshServiceDep,
    TokensDep,
    UserDep,
)
from app.schemas.auth import (
    Credentials,
    KeySet,
    Logout,
    MailedToken,
    PasswordChange,
    PasswordForgotten,
    PasswordForm,
    PasswordReset,
    Refresh,
    Registered,
    Registration,
    TokenPair,
)
from plinth.http import FastRoute, problem_responses
from plinth.security import PUBLIC

router = APIRouter(prefix="/api/auth", tags=["auth"], route_class=FastRoute)
# The password grant is served where /docs is and nowhere else: no other client should use it (RFC 9700 §2.4).
docs_router = APIRouter(prefix="/api/auth", tags=["auth"], route_class=FastRoute)


@router.post("/register", dependencies=[PUBLIC, AUTH_LIMIT], status_code=status.HTTP_201_CREATED)
async def register(data: Registration, accounts: AccountServiceDep) -> Registered:
    """Create an account. A mail has a link that confirms the address, or says that there is an account already."""
    return await accounts.register(data)


@router.post("/login", dependencies=[PUBLIC, AUTH_LIMIT, NO_STORE], responses=problem_responses(401, 429))
async def login(data: Credentials, logins: LoginServiceDep, device: DeviceDep) -> TokenPair:
    """Sign in: begin a session, and return its tokens."""
    return await logins.login(data.email, data.password, device)


@docs_router.post("/token", dependencies=[PUBLIC, AUTH_LIMIT, NO_STORE], responses=problem_responses(401, 429))
async def login_by_form(form: Annotated[PasswordForm, Form()], logins: LoginServiceDep, device: DeviceDep) -> TokenPair:
    """Sign in by OAuth 2's form, as Authorize on /docs does."""
    return await logins.login(form.username, form.password, device)


@router.post("/refresh", dependencies=[PUBLIC, AUTH_LIMIT, NO_STORE], responses=problem_responses(401))
async def refresh(data: Refresh, sessions: RefreshServiceDep) -> TokenPair:
    """Exchange a refresh token for a new pair. Each works once: using one again ends its session."""
    return await sessions.refresh(data.refresh_token)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT)
async def logout(data: Logout, user: UserDep, logins: LoginServiceDep) -> None:
    """Sign out: end this session, or those of all devices."""
    await logins.logout(user, data.all)


@router.post("/verify-email", dependencies=[PUBLIC, AUTH_LIMIT], status_code=status.HTTP_204_NO_CONTENT)
async def verify_email(data: MailedToken, accounts: AccountServiceDep) -> None:
    """Confirm the address of an account."""
    await accounts.verify(data.token)


@router.post("/password/forgot", dependencies=[PUBLIC, AUTH_LIMIT], status_code=status.HTTP_202_ACCEPTED)
async def forget_password(data: PasswordForgotten, accounts: AccountServiceDep) -> None:
    """Have a link mailed by which the password can be reset, if there is an account of this address."""
    await accounts.forget_password(data.email)


@router.post("/password/reset", dependencies=[PUBLIC, AUTH_LIMIT], status_code=status.HTTP_204_NO_CONTENT)
async def reset_password(data: PasswordReset, accounts: AccountServiceDep) -> None:
    """Set a new password by the link in a mail. All sessions end."""
    await accounts.reset_password(data)


@router.post("/password/change", status_code=status.HTTP_204_NO_CONTENT, responses=problem_responses(429))
async def change_password(data: PasswordChange, user: UserDep, accounts: AccountServiceDep, device: DeviceDep) -> None:
    """Set a new password. All other sessions end."""
    await accounts.change_password(user, data, device.address)


@router.get("/jwks", dependencies=[PUBLIC])
async def get_jwks(tokens: TokensDep) -> KeySet:
    """Return the public keys that verify access tokens."""
    return KeySet.model_validate(tokens.jwks())
