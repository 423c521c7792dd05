"""Who sends a request, and what it may do: passwords, tokens, scopes, limits, idempotency keys and an audit trail."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plinth.security.audit import AuditQueries, prune_audit, set_actor
from plinth.security.idempotency import idempotent, prune_idempotency_keys
from plinth.security.limiting import LimitMiddleware, limited
from plinth.security.limits import Limits
from plinth.security.lockout import Lockout
from plinth.security.opaque import has_form, hash_secret, new_secret
from plinth.security.principals import PUBLIC, Principal, requires
from plinth.security.settings import AuthSettings, LimitSettings

if TYPE_CHECKING:
    from plinth.security.discovery import DiscoveredKeys
    from plinth.security.passwords import Passwords, open_passwords, password_faults
    from plinth.security.tokens import Claims, Tokens

__all__ = [
    "PUBLIC",
    "AuditQueries",
    "AuthSettings",
    "Claims",
    "DiscoveredKeys",
    "LimitMiddleware",
    "LimitSettings",
    "Limits",
    "Lockout",
    "Passwords",
    "Principal",
    "Tokens",
    "has_form",
    "hash_secret",
    "idempotent",
    "limited",
    "new_secret",
    "open_passwords",
    "password_faults",
    "prune_audit",
    "prune_idempotency_keys",
    "requires",
    "set_actor",
]

# Imported on first use, because a project without accounts may lack PyJWT and pwdlib.
_ON_USE = {
    "Claims": "tokens",
    "DiscoveredKeys": "discovery",
    "Passwords": "passwords",
    "Tokens": "tokens",
    "open_passwords": "passwords",
    "password_faults": "passwords",
}


def __getattr__(name: str) -> Any:
    """Import what `_ON_USE` lists (PEP 562)."""
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return value
