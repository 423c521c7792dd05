"""Who sends a request, and what it may do: passwords, tokens, scopes, limits, idempotency keys and an audit trail."""

from plinth.security.audit import AuditQueries, prune_audit, set_actor
from plinth.security.discovery import DiscoveredKeys
from plinth.security.idempotency import idempotent, prune_idempotency_keys
from plinth.security.limiting import LimitMiddleware, limited
from plinth.security.limits import Limits
from plinth.security.lockout import Lockout
from plinth.security.opaque import has_form, hash_secret, new_secret
from plinth.security.passwords import Passwords, open_passwords, password_faults
from plinth.security.principals import PUBLIC, Principal, requires
from plinth.security.settings import AuthSettings, LimitSettings
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
