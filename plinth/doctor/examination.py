"""All checks in order: each runs where what it needs was found right, and none of them ends the others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import get_type_hints

from plinth.database import DatabaseSettings
from plinth.doctor import configuration, environment, host, services
from plinth.doctor.configuration import Configuration
from plinth.doctor.database import databases
from plinth.doctor.findings import Check, Finding, has_error, one_line
from plinth.doctor.migrations import migrations
from plinth.settings import Settings


def examine(get_settings: Callable[[], Settings], has_jobs: bool, root: Path) -> list[Finding]:
    """`get_settings` names the class of the settings as what it returns."""
    kind: type[Settings] = get_type_hints(get_settings)["return"]
    configuration.adopt_servers(kind, root)
    read = configuration.read(get_settings, kind)
    found = [
        *_guarded("python", environment.python(root)),
        *_guarded("packages", environment.packages(root)),
        *read.findings,
        *_guarded("variables", configuration.unknown(kind)),
    ]
    if read.settings is not None:
        found += _of_settings(read.settings, read, has_jobs, root)
    return found


def _of_settings(settings: Settings, read: Configuration, has_jobs: bool, root: Path) -> Iterator[Finding]:
    wrong = read.wrong
    yield from _guarded("secrets", configuration.secrets(settings, read.names))
    if not wrong & {"host", "port", "metrics"}:
        yield from _guarded("ports", host.ports(settings, root))
    if "storage" not in wrong:
        folders = [root / ".data"] if settings.storage.url else [settings.storage.folder, root / ".data"]
        yield from _guarded("disk", host.disk(folders))
        yield from _guarded("storage", _all(services.storage(settings.storage)))
    if "redis" not in wrong:
        yield from _guarded("redis", _all(services.redis(settings.redis)))
    direct: DatabaseSettings | None = None
    if "database" not in wrong:
        reached = [*_guarded("database", _all(databases(settings, has_jobs)))]
        yield from reached
        direct = None if _direct_is_away(settings, reached) else settings.database.direct
    yield from _guarded("migrations", migrations(direct, settings.production, root / "alembic.ini"))


def _direct_is_away(settings: Settings, reached: Iterable[Finding]) -> bool:
    variable = "DATABASE_DIRECT_URL" if settings.database.direct_url else "DATABASE_URL"
    return has_error(each for each in reached if each.check == "database" and each.sentence.startswith(f"{variable}:"))


def _all(findings: AsyncIterator[Finding]) -> Iterator[Finding]:
    async def collected() -> list[Finding]:
        return [finding async for finding in findings]

    yield from asyncio.run(collected())


def _guarded(check: Check, findings: Iterator[Finding]) -> Iterator[Finding]:
    """A check that fails is a finding itself."""
    try:
        yield from findings
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        mend = "This is a mistake in the check, unless the text says what is wrong: report it."
        yield Finding(check, "error", f"This could not be checked ({reason}).", mend)
