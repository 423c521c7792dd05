"""The accounts in the tests that stay: there a client signs in, and each of their endpoints is called."""

from tools.project import Place
from tools.removals.removal import blocks, lines

TESTS = [
    *lines(
        "tests/app/conftest.py",
        """\
from app import tags
from app.enums import Role
from tests.app.accounts import IDS, add_accounts, headers_of
    await add_accounts(onlooker)
""",
    ),
    (
        Place(
            "tests/app/conftest.py",
            '''\
async def accounts(service: Service, empty_tables: None) -> None:
    """Nothing is cached of the accounts as another test has left them."""
    await service.state["cache"].invalidate(*(tags.USER(id) for id in IDS.values()))


@pytest.fixture
async def client(service: Service, settings: Settings, accounts: None) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose tables are empty, that an administrator has signed in with."""
    async with service.client(headers_of(settings, Role.ADMIN)) as client:
        yield client


@pytest.fixture
async def anonymous(service: Service, accounts: None) -> AsyncIterator[AsyncClient]:
    """A client that nobody has signed in with."""
    async with service.client() as client:
        yield client
''',
        ),
        '''\
async def client(service: Service, empty_tables: None) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose tables are empty."""
    async with service.client() as client:
        yield client
''',
    ),
    (Place("tests/app/conftest.py", "settings: Settings, accounts: None"), "settings: Settings, empty_tables: None"),
    *lines("tests/app/conftest.py", "    headers = headers_of(settings, Role.ADMIN)\n"),
    (Place("tests/app/conftest.py", "service.client(headers)"), "service.client()"),
    *lines(
        "tests/app/resources.py",
        """\
from app.enums import Role
from tests.app.accounts import PASSWORD, REFRESH_TOKEN, RESET_TOKEN, VERIFY_TOKEN, email_of, logins_of
NEW_PASSWORD = "correct horse battery"
    Resource("/api/api-keys", create={"name": "Key {n}"}),
        ("POST", "/api/auth/register"): {"email": "new{n}@example.com", "password": NEW_PASSWORD, "name": "New"},
        ("POST", "/api/auth/login"): {"email": email_of(Role.USER), "password": PASSWORD},
        ("POST", "/api/auth/token"): Form({"username": email_of(Role.USER), "password": PASSWORD}),
        ("POST", "/api/auth/refresh"): {"refresh_token": REFRESH_TOKEN},
        ("POST", "/api/auth/logout"): {"all": False},
        ("POST", "/api/auth/verify-email"): {"token": VERIFY_TOKEN},
        ("POST", "/api/auth/password/forgot"): {"email": email_of(Role.USER)},
        ("POST", "/api/auth/password/reset"): {"token": RESET_TOKEN, "password": NEW_PASSWORD},
        ("POST", "/api/auth/password/change"): {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        ("PATCH", "/api/users/me"): {"name": "Name {n}"},
        ("DELETE", "/api/users/me"): None,
        ("DELETE", "/api/users/me/sessions/{id}"): None,
        ("PATCH", "/api/users/{id}"): {"role": "editor"},
    # The accounts of the tests are there in any case.
    ids={"/api/users": [1, 2, 3], "/api/users/me/sessions": logins_of(Role.ADMIN)},
""",
    ),
    *lines(
        "tests/app/test_invalidation.py",
        """\
from app.enums import Role
from tests.app.accounts import headers_of
    headers = headers_of(settings, Role.ADMIN)
""",
    ),
    (
        Place("tests/app/test_invalidation.py", "(other) as service, service.client(headers)"),
        "(other) as service, service.client()",
    ),
    (
        Place("tests/app/test_invalidation.py", "(cached) as service, service.client(headers)"),
        "(cached) as service, service.client()",
    ),
    *lines("tests/app/test_openapi.py", "from app.enums import Role\nfrom tests.app.accounts import headers_of\n"),
    *lines(
        "tests/app/test_openapi.py",
        r"""
    rb'|"This link is not valid or has expired\.|"This is not the password of the account\.'
    rb'|"This password is one of the first to be guessed\.|"You may not do this yourself:'
    rb'|"This instant has passed\.'
"""[1:],
    ),
    (Place("tests/app/test_openapi.py", "versions exist, or who has signed in too often."), "versions exist."),
    (Place("tests/app/test_openapi.py", '{**CONFIG, "headers": headers_of(settings, Role.ADMIN)}'), "CONFIG"),
    (Place("tests/app/test_openapi.py", ".exclude(func=ends_the_session)"), ""),
    *blocks(
        "tests/app/test_openapi.py",
        '''
def ends_the_session(context: Any) -> bool:
    """All requests after one of these would be refused, and show nothing."""
    path, method = str(context.operation.path), context.operation.method.upper()
    return path == "/api/auth/logout" or (method == "DELETE" and path.startswith("/api/users/me"))
''',
        end="\n\n\n",
    ),
    *lines(
        "tests/app/test_round_trips.py",
        """\
from tests.app.accounts import add_accounts
RECORDED = 1  # who makes the change, for the audit trail
COUNTED = 7  # BEGIN, two INSERTs that count an attempt, COMMIT; BEGIN, DELETE, COMMIT
LOGIN = COUNTED + READ + 5  # BEGIN, SELECT FOR UPDATE, two INSERTs, COMMIT
    ("POST", "/api/auth/register"): 5,  # BEGIN, INSERT, SELECT, INSERT of the mail's job, COMMIT
    ("POST", "/api/auth/login"): LOGIN,
    ("POST", "/api/auth/token"): LOGIN,
    ("POST", "/api/auth/refresh"): 6,  # BEGIN, SELECT FOR UPDATE, two UPDATEs, INSERT, COMMIT
    ("POST", "/api/auth/logout"): 3,  # BEGIN, DELETE, COMMIT
    ("POST", "/api/auth/verify-email"): 4,  # BEGIN, DELETE, SELECT FOR UPDATE, COMMIT
    ("POST", "/api/auth/password/forgot"): READ + 3,  # BEGIN, INSERT of the mail's job, COMMIT
    ("POST", "/api/auth/password/reset"): READ + 8,  # the password and all that it ends, and a mail's job
    ("POST", "/api/auth/password/change"): READ + COUNTED + 7 + RECORDED,
    ("GET", "/api/auth/jwks"): 0,
    ("GET", "/api/users/me"): READ,
    ("PATCH", "/api/users/me"): UPDATE + RECORDED,
    ("DELETE", "/api/users/me"): DELETE + RECORDED,
    ("GET", "/api/users/me/sessions"): READ,
    ("DELETE", "/api/users/me/sessions/{id}"): 3,  # BEGIN, DELETE, COMMIT
    ("GET", "/api/users"): READ,
    ("GET", "/api/users/{id}"): READ,
    ("PATCH", "/api/users/{id}"): UPDATE + RECORDED,
    ("GET", "/api/api-keys"): READ,
    ("POST", "/api/api-keys"): 5 + RECORDED,  # BEGIN, two SELECTs, INSERT, COMMIT
    ("DELETE", "/api/api-keys/{id}"): DELETE + RECORDED,
    ("GET", "/api/audit"): READ,
    if path.startswith(("/api/auth/", "/api/users/")):
        await add_accounts(onlooker)  # some calls end the session, or use up a token
    assert (await wired.get("/api/users/me")).is_success  # who sends the request is cached
""",
    ),
    (
        Place("tests/app/test_round_trips.py", "wire: WirePostgres, onlooker: asyncpg.Connection, "),
        "wire: WirePostgres, ",
    ),
]
