"""A part of the update drill: a project without jobs gets their tables, then jobs by following the printed lines."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from plinth.testing.servers import Servers
from tests.tools.support import query

TABLES = (
    "SELECT coalesce(string_agg(tablename, ' ' ORDER BY tablename), '') FROM pg_tables WHERE tablename LIKE 'plinth_%'"
)
ENQUEUE = """
import asyncio
from app.jobs import PRUNE_JOBS, PruneJobs
from app.settings import get_settings
from plinth.database import open_database
from plinth.jobs import Jobs

async def main():
    async with open_database(get_settings().database, "drill") as database, database.sessions.begin() as session:
        print(await Jobs(session).enqueue(PRUNE_JOBS, PruneJobs()))

asyncio.run(main())
"""
OURS = "plinth_audit plinth_idempotency_keys plinth_job_effects plinth_jobs plinth_login_attempts plinth_schedules"
SECONDS = 60


def gain_tables(project: Path, servers: Servers, newest: str) -> None:
    """Migrate from the user's newest revision. Without the printed lines there is no worker."""
    python(project, servers, "-m", "app", "migrate", newest)
    assert query(servers, TABLES) == ""
    python(project, servers, "-m", "app", "migrate")
    assert query(servers, TABLES) == OURS
    commands = re.findall(r"(?m)^\W*(migrate|worker)\b", python(project, servers, "-m", "app", "--help"))
    assert commands == ["migrate"], commands


def follow(printed: str, template: Path, project: Path) -> None:
    """Copy the new files that an update has printed, and apply the lines."""
    for path in section(printed, r"New files of it, which you may copy; .*"):
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(template / path, project / path)
    lines = "\n".join(section(printed, "Lines that you may want from it"))
    subprocess.run(["git", "apply", "-p0", "-"], cwd=project, input=f"{lines}\n", text=True, check=True)


def section(printed: str, heading: str) -> list[str]:
    found = re.search(rf"(?m)^{heading}:\n((?:  .*\n)+)", printed)
    assert found, heading
    return [line[2:] for line in found[1].splitlines()]


def run_a_job(project: Path, servers: Servers) -> None:
    python(project, servers, "-m", "app", "migrate")  # the tables of accounts, which were among the files
    id = python(project, servers, "-c", ENQUEUE).strip()
    worker = subprocess.Popen([sys.executable, "-m", "app", "worker"], cwd=project, env=environment(servers))
    try:
        deadline = time.monotonic() + SECONDS
        while not re.search(r"(?m)^state +succeeded$", shown := show(project, servers, id)):
            assert worker.poll() is None, shown
            assert time.monotonic() < deadline, shown
        worker.terminate()
        assert worker.wait(SECONDS) == 0
    finally:
        worker.kill()
        worker.wait()


def show(project: Path, servers: Servers, id: str) -> str:
    return python(project, servers, "-m", "app", "jobs", "show", id)


def python(project: Path, servers: Servers, *arguments: str) -> str:
    """Run the project's code with the packages of this environment."""
    argv = [sys.executable, *arguments]
    return subprocess.run(
        argv, cwd=project, env=environment(servers), stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def environment(servers: Servers) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
