"""Accounts: users, their sessions, API keys and roles, and who may call what."""

from tools.project import Place
from tools.removals.account_dependencies import DEPENDENCIES
from tools.removals.account_tests import TESTS
from tools.removals.removal import Removal, blocks, lines

LAYERS = ("models", "schemas", "repositories", "services", "routers")
NAMES = ("users", "auth", "api_keys")
MODELS = ("ApiKey", "Login", "MailToken", "RefreshToken", "User")

ACCOUNTS = Removal(
    about="accounts: users, their sessions, API keys and roles",
    paths=[
        *(f"app/{layer}/{name}.py" for name in NAMES for layer in LAYERS),
        "app/services/access.py",
        "app/services/accounts.py",
        "app/scopes.py",
        "app/tasks/users.py",
        *(f"app/mails/{name}.txt" for name in ("account_exists", "password_changed", "password_reset", "welcome")),
        *(f"tests/app/routers/test_{name}.py" for name in NAMES),
        *(f"tests/app/{name}.py" for name in ("accounts", "mailbox", "test_access", "test_create_admin")),
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
        *DEPENDENCIES,
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
        (Place("app/routers/jobs.py", "import SIGNED_IN, "), "import "),
        (Place("app/routers/jobs.py", "[SIGNED_IN"), "[PUBLIC"),
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
        *blocks(
            "app/cli.py",
            '''
@app.command("create-admin")
def create_admin(
    context: typer.Context, email: Annotated[str, typer.Argument(help="Address that the administrator signs in with.")]
) -> None:
    """Create an administrator. The password is asked for on a terminal, or else read from standard input.

    Example: app create-admin ada@example.com
    """
    terminal = sys.stdin.isatty()
    ask = partial(typer.prompt, "Password", hide_input=True, confirmation_prompt=True, err=True)
    password = ask() if terminal else sys.stdin.readline().rstrip("\\r\\n")
    try:
        print(f"{asyncio.run(_create_admin(context.obj, email, password))} can sign in.")
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        fail(f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].removeprefix('Value error, ')}.")
    except UnavailableError as error:
        fail(f"The administrator could not be stored: {error.__cause__ or error}")
    except AppError as error:
        fail(str(error))


async def _create_admin(settings: Settings, email: str, password: str) -> str:
    from app.dependencies import get_account_creator
    from app.enums import Role
    from app.schemas.auth import Registration
    from plinth.database import open_database
    from plinth.security import open_passwords

    data = Registration(email=email, password=password, name="Administrator")
    async with (
        open_passwords(1) as passwords,
        open_database(settings.database, settings.app.name) as database,
        database.sessions.begin() as session,
    ):
        creator = await get_account_creator(session, passwords)
        await creator.create(data, Role.ADMIN)
    return data.email
''',
        ),
        *blocks(
            "app/settings.py",
            """
    public_url: str = Field(
        "http://localhost:8000", description="Where people reach the service's pages: links in mails begin with it."
    )


        if self.secret_key is None:
            yield "APP_SECRET_KEY: is missing; set it to the output of `openssl rand -hex 32`"
""",
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
            Place("pyproject.toml", 'module = ["asyncpg.*", '),
            'module = ["asyncpg.*", "cryptography.*", "jwt.*", "pwdlib.*", ',
        ),
        *TESTS,
    ],
    elements=[
        *(Place("app/models/__init__.py", f'"{model}"') for model in MODELS),
        *(Place("app/routers/__init__.py", f"{name}{more}") for name in NAMES for more in ("", ".router")),
        *(Place("app/tasks/__init__.py", name) for name in ("PRUNE_ACCOUNTS", "PruneAccounts", "users")),
        *(Place("app/tasks/__init__.py", f"users.{task}") for task in ("prune", "mail_account")),
    ],
    references=[
        r"\bapp\.(?:scopes|\w+\.(?:users|auth|api_keys|access|accounts))\b",
        r"from app\.?\w* import .*\b(?:users|auth|api_keys|access|accounts|scopes)\b",
        r"from app\.models import [^#\n]*\b(?:User|Login|ApiKey|MailToken|RefreshToken)\b",
        r"(?:Mapped\[|relationship\().*[\"'\[](?:User|Login|ApiKey|MailToken|RefreshToken)\b",
        r"from app\.enums import [^#\n]*\bRole\b",
        r"\b(?:User|Session|ApiKey)ReaderDep\b",
        r"\b(?:User|Login|Refresh|Account|ApiKey)ServiceDep\b",
        r"\b(?:UserDep|AdministratorDep|TokensDep|DeviceDep|MAY_ADMINISTRATE|SIGNED_IN|NO_STORE)\b",
        r"\b(?:get_principal|get_user|get_access|get_tokens|get_device)\b",
        r"\btags\.(?:USER|LOGIN|API_KEY)\b",
        r"\b(?:PRUNE_ACCOUNTS|ACCOUNT_MAIL|create_admin|public_url)\b",
        r"[\"'](?:users|logins|mail_tokens|refresh_tokens|api_keys)\.\w+[\"']",
        r"(?i:\b(?:from|join|into|update|table) (?:users|logins|mail_tokens|refresh_tokens|api_keys)\b)",
        r"/api/(?:auth|users|api-keys)\b",
        r"\btests\.app\.(?:accounts|mailbox)\b",
        r"\b(?:headers_of|add_accounts|anonymous)\b",
        r"^\s*(?:import|from) (?:jwt|pwdlib|multipart|python_multipart)\b",
    ],
    stays=(
        "Everyone may call every route now: see MAY_WRITE in app/dependencies.py. plinth/security/, its tables and the "
        "settings AUTH_* stay, for they are plinth's. `make lock` takes the libraries out of the lock files."
    ),
)
