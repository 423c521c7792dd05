"""What the example and the accounts have in common, which goes with either: accounts to try it with, and its scopes."""

from tools.project import Place
from tools.removals.removal import Removal, blocks, lines

CACHING = "tests/app/routers/test_catalogue_caching.py"

EXAMPLE_ACCOUNTS = Removal(
    about="the example's accounts",
    paths=["tests/app/test_example_accounts.py", "tests/app/test_job_owners.py"],
    texts=[
        (
            Place(
                "app/cli.py",
                """\
    from app.example_data import EXAMPLE_PASSWORD
    from app.repositories.example_data import load_example_accounts, load_example_data
    from plinth.database import open_database
    from plinth.security import open_passwords
""",
            ),
            """\
    from app.repositories.example_data import load_example_data
    from plinth.database import open_database
""",
        ),
        (
            Place(
                "app/cli.py",
                """\
    async with open_passwords(1) as passwords:
        hash = await passwords.hash(EXAMPLE_PASSWORD)
""",
            ),
            "",
        ),
        *lines("app/cli.py", "        await load_example_accounts(session, hash)\n"),
        *lines("app/example_data.py", "from app.enums import Role\n"),
        (
            Place(
                "app/example_data.py",
                """\
EXAMPLE_ACCOUNTS = {
    "test@example.com": Role.USER,
    "editor@example.com": Role.EDITOR,
    "admin@example.com": Role.ADMIN,
}
EXAMPLE_PASSWORD = "testpass123"  # noqa: S105 - refused in production, as all of this is
""",
            ),
            "",
        ),
        *lines("app/repositories/example_data.py", "from app.repositories.users import UserRepository\n"),
        *blocks(
            "app/repositories/example_data.py",
            '''
async def load_example_accounts(session: Session, password_hash: str) -> None:
    """Add the accounts that are not there."""
    users = UserRepository(session)
    for email, role in example_data.EXAMPLE_ACCOUNTS.items():
        values = {"email": email, "name": role.title(), "role": role, "verified_at": datetime.now(UTC)}
        await users.add(password_hash=password_hash, **values)
''',
            end="\n\n\n",
        ),
        # The reports, which are there as long as both are.
        (Place("app/routers/reports.py", "import WRITE_LIMIT, ReporterDep"), "import MAY_WRITE, WRITE_LIMIT"),
        (Place("app/routers/reports.py", "[WRITE_LIMIT"), "[MAY_WRITE, WRITE_LIMIT"),
        (Place("app/routers/reports.py", "principal: ReporterDep, "), ""),
        (Place("app/routers/reports.py", "request_prices(principal)"), "request_prices()"),
        *lines("app/services/reports.py", "from plinth.security import Principal, hash_secret\n"),
        (
            Place(
                "app/services/reports.py",
                '''\
(self, principal: Principal) -> UUID:
        """Have the summary mailed. While one is being made for a user, no other is begun."""
        owner = principal.owner
        key = f"prices:{hash_secret(owner).hex()}"  # for each, since the job is shown to no one else
        return await self._jobs.enqueue(PRICE_REPORT, PriceReport(), key=key, requested_by=owner)
''',
            ),
            '''\
(self) -> UUID:
        """Have the summary mailed. While one is being made, no other is begun."""
        return await self._jobs.enqueue(PRICE_REPORT, PriceReport(), key="prices")
''',
        ),
        *lines("app/access.py", "MAY_REQUEST_REPORTS = requires(get_principal, scopes.REPORTS)\n"),
        *lines("app/access.py", "ReporterDep = Annotated[Principal, MAY_REQUEST_REPORTS]\n"),
        *lines("app/scopes.py", 'REPORTS = "reports:request"\n    REPORTS: "Have reports mailed.",\n'),
        (Place("app/scopes.py", "{CONTENT_WRITE, REPORTS}"), "{CONTENT_WRITE}"),
        *lines(
            CACHING,
            "from app.enums import Role\nfrom tests.app.accounts import headers_of\n"
            "    headers = headers_of(settings, Role.ADMIN)\n",
        ),
        (Place(CACHING, "service.client(headers_of(settings, Role.ADMIN))"), "service.client()"),
        (
            Place(
                CACHING,
                ", headers_of(settings, Role.ADMIN)\n    async with serve(app) as service, service.client(headers)",
            ),
            "\n    async with serve(app) as service, service.client()",
        ),
        (Place(CACHING, "    app, headers = create_app("), "    app = create_app("),
        (Place(CACHING, 'headers, url = headers_of(settings, Role.ADMIN), f"'), 'url = f"'),
        (Place(CACHING, "base_url=url, headers=headers, "), "base_url=url, "),
        (
            Place(CACHING, "serve(create_app(strict)) as service, service.client(headers)"),
            "serve(create_app(strict)) as service, service.client()",
        ),
        *lines(
            "tests/app/test_access.py",
            """\
    ("GET", "/api/products"): PUBLIC,
    ("GET", "/api/products/search"): PUBLIC,
    ("GET", "/api/products/facets"): PUBLIC,
    ("GET", "/api/products/export"): PRINCIPALS,
    ("GET", "/api/products/{id}"): PUBLIC,
    ("POST", "/api/products"): EDITORS,
    ("PUT", "/api/products/{id}"): EDITORS,
    ("PATCH", "/api/products/{id}"): EDITORS,
    ("DELETE", "/api/products/{id}"): EDITORS,
    ("POST", "/api/products/bulk"): EDITORS,
    ("GET", "/api/imports/{id}"): EDITORS,
    ("GET", "/api/products/{id}/image"): PUBLIC,
    ("PUT", "/api/products/{id}/image"): EDITORS,
    ("DELETE", "/api/products/{id}/image"): EDITORS,
    ("GET", "/api/categories"): PUBLIC,
    ("GET", "/api/categories/{id}"): PUBLIC,
    ("POST", "/api/categories"): EDITORS,
    ("PUT", "/api/categories/{id}"): EDITORS,
    ("PATCH", "/api/categories/{id}"): EDITORS,
    ("DELETE", "/api/categories/{id}"): EDITORS,
    ("GET", "/api/reports/prices"): PUBLIC,
    ("POST", "/api/reports/prices"): EDITORS,
""",
        ),
    ],
    elements=[],
    references=[
        r"\b(?:MAY_REQUEST_REPORTS|ReporterDep|EXAMPLE_(?:ACCOUNTS|PASSWORD)|load_example_accounts)\b",
        r"\bscopes\.REPORTS\b",
    ],
)
