"""The command that creates an administrator."""

from tools.removals.removal import blocks

COMMAND = blocks(
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
    from app.access import get_account_creator
    from app.enums import Role
    from app.schemas.auth import Registration
    from plinth.database import open_database
    from plinth.security import open_passwords

    data = Registration(email=email, password=password, name="Administrator")
    async with open_passwords(1) as passwords, open_database(settings.database, settings.app.name) as database:
        sessions = database.sessions
        async with sessions.begin() as session:
            await (await get_account_creator(session, passwords)).create(data, Role.ADMIN)
    return data.email
''',
)
