from datetime import timedelta

from app.access import get_account_mail_service
from app.dependencies import WorkerState
from app.jobs import ACCOUNT_MAIL, PRUNE_ACCOUNTS, AccountMail, PruneAccounts
from app.repositories.auth import AuthRepository
from plinth.jobs import Run, task
from plinth.security import Lockout

TEMPLATES = {
    "verify": "welcome",
    "registered": "account_exists",
    "reset": "password_reset",
    "changed": "password_changed",
}
PAGES = {"verify": "verify-email", "reset": "reset-password"}


@task(ACCOUNT_MAIL, timeout_seconds=60)
async def mail_account(run: Run[WorkerState], mail: AccountMail) -> None:
    """Each attempt makes a link of its own: that of one that failed may have been sent, and remains valid."""
    state = run.state
    async with state["database"].sessions.begin() as session:
        letter = await (await get_account_mail_service(session)).prepare(mail)
    if letter is None:
        return
    # After the `#`, which browsers send to no server: no log has it.
    link = f"{state['public_url']}/{PAGES.get(mail.purpose, '')}" + (f"#token={letter.secret}" if letter.secret else "")
    values = {"name": letter.name, "link": link}
    template = TEMPLATES[mail.purpose]
    await state["mailer"].send(template, to=letter.email, name=letter.name, message_id=run.id, values=values)


@task(PRUNE_ACCOUNTS, timeout_seconds=3600)
async def prune(run: Run[WorkerState], limits: PruneAccounts) -> None:
    """Delete sessions and links that have expired, and counts of attempts to sign in that are old."""
    sessions = run.state["database"].sessions
    async with sessions.begin() as session:
        await AuthRepository(session).prune(timedelta(days=limits.refresh_token_days))
    await Lockout(sessions).prune()
