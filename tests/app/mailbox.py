"""The mails that the service's worker has sent, as files."""

import asyncio
import email
import re
from collections.abc import Awaitable, Callable
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import asyncpg

from app.settings import Settings
from tests.app.worker import working

QUEUED = "SELECT count(*) FROM plinth_jobs WHERE name = $1 AND state IN ('queued', 'running')"

Mails = Callable[[], Awaitable[list[EmailMessage]]]


async def read_mails(
    settings: Settings, folder: Path, onlooker: asyncpg.Connection, name: str = "account_mail"
) -> list[EmailMessage]:
    """Those of the jobs that wait, which a worker sends now, in the order in which they were asked for."""
    jobs = await onlooker.fetch("SELECT id FROM plinth_jobs WHERE name = $1 ORDER BY created_at", name)
    async with working(settings):
        await until_empty(onlooker, name)
    files = [folder / f"{job['id']}.eml" for job in jobs]
    mails = [email.message_from_bytes(file.read_bytes(), policy=default) for file in files if file.exists()]
    await onlooker.execute("DELETE FROM plinth_jobs WHERE name = $1", name)
    return mails


async def until_empty(onlooker: asyncpg.Connection, name: str) -> None:
    async with asyncio.timeout(30):
        while True:
            if not await onlooker.fetchval(QUEUED, name):
                return
            await asyncio.sleep(0.01)


def token_in(mail: EmailMessage) -> str:
    [token] = re.findall(r"#token=(\S+)", str(mail.get_content()))
    return str(token)
