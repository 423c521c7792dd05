"""What a principal may do, and which of it each role has. Routes name a scope to require it."""

from collections.abc import Mapping

from app.enums import Role

CONTENT_WRITE = "content:write"
REPORTS = "reports:request"
USERS_ADMIN = "users:admin"
AUDIT_READ = "audit:read"

API_KEY_PREFIX = "key_"
"""How API keys begin, which distinguishes them from access tokens."""

DESCRIPTIONS = {
    CONTENT_WRITE: "Create, change and delete what the service has.",
    REPORTS: "Have reports mailed.",
    USERS_ADMIN: "Read all accounts, and change their roles.",
    AUDIT_READ: "Read who changed what.",
}
ROLES: Mapping[Role, frozenset[str]] = {
    Role.USER: frozenset(),
    Role.EDITOR: frozenset({CONTENT_WRITE, REPORTS}),
    Role.ADMIN: frozenset(DESCRIPTIONS),
}
