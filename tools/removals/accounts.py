"""Accounts: users, their sessions, API keys and roles, and who may call what."""

from tools.project import Place
from tools.removals.account_tests import TESTS
from tools.removals.create_admin import COMMAND
from tools.removals.removal import Removal, blocks, lines

LAYERS = ("models", "schemas", "repositories", "services", "routers")
NAMES = ("users", "auth", "api_keys")
MODELS = ("ApiKey", "Login", "MailToken", "RefreshToken", "User")

ACCESS = '''"""Who may call what."""

from app.dependencies import get_session
from plinth.security import PUBLIC, idempotent, limited

# Every route declares who may call it: PUBLIC, MAY_EXPORT where it costs much, or MAY_WRITE if it changes something.
# Without accounts everyone may; a check of your own, such as one of what a gateway sends, replaces PUBLIC here.
MAY_EXPORT = MAY_WRITE = PUBLIC
# How many requests are accepted from an address, as LIMIT_WRITES says.
WRITE_LIMIT = limited("writes")
# The request may be sent again with the same Idempotency-Key, and is carried out once: `dependencies=[IDEMPOTENT]`.
IDEMPOTENT = idempotent(get_session)
'''

ACCOUNTS = Removal(
    about="accounts: users, their sessions, API keys and roles",
    paths=[
        *(f"app/{layer}/{name}.py" for name in NAMES for layer in LAYERS),
        *(f"app/{layer}/audit.py" for layer in ("schemas", "services", "routers")),
        "app/services/access.py",
        "app/services/accounts.py",
        "app/scopes.py",
        "app/tasks/users.py",
        *(f"app/mails/{name}.txt" for name in ("account_exists", "password_changed", "password_reset", "welcome")),
        *(f"tests/app/routers/test_{name}.py" for name in (*NAMES, "audit")),
        *(f"tests/app/{name}.py" for name in ("accounts", "mailbox", "meeting", "test_access", "test_create_admin")),
    ],
    texts=[
        *lines(
            "app/main.py",
            """\
        open_passwords(settings.auth.most_waiting) as passwords,
        trusted = settings.auth.trusted_issuer
        remote = DiscoveredKeys(trusted, outgoing) if trusted else None
            "auth": settings.auth,
            "tokens": Tokens(settings.auth, settings.app.signing_key, settings.app.identifier, remote),
            "passwords": passwords,
            "public_url": settings.app.public_url.rstrip("/"),
""",
        ),
        *lines(
            "app/dependencies.py",
            "    auth: AuthSettings\n    tokens: Tokens\n    passwords: Passwords\n    public_url: str\n",
        ),
        *lines("app/tags.py", 'USER = Tag("user:{id}")\nLOGIN = Tag("login:{id}")\nAPI_KEY = Tag("api_key:{hash}")\n'),
        *blocks(
            "app/enums.py",
            """
class Role(StrEnum):
    USER = "user"
    EDITOR = "editor"
    ADMIN = "admin"
""",
        ),
        *lines(
            "app/models/__init__.py",
            """\
from app.models.api_keys import ApiKey
from app.models.auth import Login, MailToken, RefreshToken
from app.models.users import User
""",
        ),
        *lines("app/routers/jobs.py", "from app.access import PrincipalDep\n"),
        (Place("app/routers/jobs.py", '"/{id}", '), '"/{id}", dependencies=[PUBLIC], '),
        (Place("app/routers/jobs.py", "principal: PrincipalDep, "), ""),
        (Place("app/routers/jobs.py", "get(id, principal)"), "get(id)"),
        (
            Place("app/routers/jobs.py", "is, to the user who has requested it and to administrators."),
            "is. Its random id is known only to the client that started it.",
        ),
        *lines("app/services/jobs.py", "from app.scopes import USERS_ADMIN\nfrom plinth.security import Principal\n"),
        (Place("app/services/jobs.py", "id: UUID, principal: Principal"), "id: UUID"),
        *lines(
            "app/services/jobs.py",
            '        """Raises NotFoundError, also for a job that another user has requested."""\n',
        ),
        (
            Place(
                "app/services/jobs.py",
                " or not (job.requested_by == principal.owner or USERS_ADMIN in principal.scopes)",
            ),
            "",
        ),
        (
            Place("app/routers/jobs.py", "\n\nrouter = APIRouter("),
            "\nfrom plinth.security import PUBLIC\n\nrouter = APIRouter(",
        ),
        *blocks(
            "app/jobs.py",
            '''
class PruneAccounts(BaseModel):
    refresh_token_days: int = 30


class AccountMail(BaseModel):
    """Never the secret of a link: the task makes it, so that it is stored nowhere but in the mail."""

    user_id: int
    """0 where there is no account: then the job does nothing, which no client can see."""
    purpose: Literal["verify", "registered", "reset", "changed"]
''',
            end="\n\n\n",
        ),
        *lines(
            "app/jobs.py",
            """\
PRUNE_ACCOUNTS = Job("prune_accounts", PruneAccounts)
ACCOUNT_MAIL = Job("account_mail", AccountMail)
""",
        ),
        (
            Place(
                "app/tasks/__init__.py",
                '    Schedule("prune_accounts", PRUNE_ACCOUNTS, PruneAccounts(), cron="40 3 * * *"),\n',
            ),
            "",
        ),
        *COMMAND,
        *blocks(
            "app/settings.py",
            """
    public_url: str = Field(
        "http://localhost:8000", description="Where people reach the service's pages: links in mails begin with it."
    )
""",
        ),
        (
            Place(
                "app/settings.py",
                """\
    settings = plinth.settings.load_settings(Settings)
    _ = settings.app.signing_key  # which tokens are signed with: without it no process starts
    return settings
""",
            ),
            "    return plinth.settings.load_settings(Settings)\n",
        ),
        *lines(
            ".env.example",
            """\
# Where people reach the service's pages: links in mails begin with it.
#APP_PUBLIC_URL=http://localhost:8000
""",
        ),
        *lines(
            "pyproject.toml",
            """\
    # accounts: tokens, passwords, and the form of OAuth2's token endpoint
    "pyjwt[crypto]>=2.15",
    "pwdlib[argon2]>=0.3",
    "python-multipart>=0.0.20",
""",
        ),
        (
            Place("pyproject.toml", "ignore_missing_imports = true\n"),
            """\
ignore_missing_imports = true

[[tool.mypy.overrides]]
module = ["plinth.security.*"] # what its libraries return has no type without them
warn_return_any = false
""",
        ),
        (
            Place("pyproject.toml", '"gunicorn.*", "uvicorn'),
            '"cryptography.*", "gunicorn.*", "jwt.*", "pwdlib.*", "uvicorn',
        ),
        *TESTS,
    ],
    elements=[
        *(Place("app/models/__init__.py", f'"{model}"') for model in MODELS),
        *(Place("app/routers/__init__.py", f"{name}{more}") for name in (*NAMES, "audit") for more in ("", ".router")),
        Place("app/routers/__init__.py", "auth.docs_router"),
        *(Place("app/tasks/__init__.py", name) for name in ("PRUNE_ACCOUNTS", "PruneAccounts", "users")),
        *(Place("app/tasks/__init__.py", f"users.{task}") for task in ("prune", "mail_account")),
    ],
    references=[
        r"\bapp\.(?:scopes|\w+\.(?:users|auth|api_keys|audit|access|accounts))\b",
        r"from app\.?\w* import .*\b(?:users|auth|api_keys|audit|access|accounts|scopes)\b",
        r"from app\.models import [^#\n]*\b(?:User|Login|ApiKey|MailToken|RefreshToken)\b",
        r"(?:Mapped\[|relationship\().*[\"'\[](?:User|Login|ApiKey|MailToken|RefreshToken)\b",
        r"from app\.enums import [^#\n]*\bRole\b",
        r"from app\.access import (?!(?:(?:IDEMPOTENT|MAY_EXPORT|MAY_WRITE|WRITE_LIMIT)(?:, )?)+$)",
        r"\btags\.(?:USER|LOGIN|API_KEY)\b",
        r"\b(?:PRUNE_ACCOUNTS|ACCOUNT_MAIL|create_admin|public_url)\b",
        r"[\"'](?:users|logins|mail_tokens|refresh_tokens|api_keys)\.\w+[\"']",
        r"(?i:\b(?:from|join|into|update|table) (?:users|logins|mail_tokens|refresh_tokens|api_keys)\b)",
        r"/api/(?:auth|users|api-keys|audit)\b",
        r"\btests\.app\.(?:accounts|mailbox|meeting)\b",
        r"\b(?:headers_of|add_accounts|anonymous)\b",
        r"^\s*(?:import|from) (?:jwt|pwdlib|multipart|python_multipart)\b",
    ],
    replaced={"app/access.py": ACCESS},
    stays=(
        "Everyone may call every route now: see app/access.py. plinth/security/, its tables and the "
        "settings AUTH_* stay, for they are plinth's. `make lock` takes the libraries out of the lock files."
    ),
)
