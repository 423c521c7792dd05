"""README and the other pages are true: files and commands exist, examples answer as shown."""

import json
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from httpx import AsyncClient

from app import tags
from app.enums import Role
from app.repositories.example_data import load_example_data
from app.settings import Settings
from plinth.database.settings import DatabaseSettings
from plinth.testing.client import Service
from plinth.testing.environment import variables
from tests.app.accounts import token_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GLOBS = ["*.md", "docs/**/*.md", "deploy/**/*.md", "plinth/*.md", "tools/*.md", ".github/*.md"]
PAGES = [page for pattern in GLOBS for page in sorted(ROOT.glob(pattern))]
# In prose, a folder of this repository and what is below it, without a test's name in it; not what a page makes up: a
# name in <>, or a new resource.
PATH = re.compile(
    rf"`((?:{'|'.join(re.escape(each.name) for each in ROOT.iterdir() if each.is_dir())})/[^`\s<>]*?)(?:::\w+)?`"
)
MADE_UP = re.compile(r"\b(test_)?(suppliers|invoices)\.py$")
FENCE = re.compile(r"(?ms)^```.*?^```")
MAKEFILES = (ROOT / "Makefile").read_text() + (ROOT / ".ci/targets.mk").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILES, re.MULTILINE))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
SECRETS = ("access_token", "refresh_token")
GROUPS = "|".join({name.partition("_")[0] for name in variables(Settings) if "_" in name})


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_its_tree_is_the_repository() -> None:
    tree = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert tree
    folder = ""
    shown: set[str] = set()
    for line in tree[1].splitlines():
        if name := re.match(r"( *)([\w./]+)", line):
            folder = folder if name[1] else name[2]
            shown.add(f"{folder}{name[2]}" if name[1] else name[2])
    assert {path for path in shown if not (ROOT / path).exists()} == set()
    real = {
        f"app/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "app").iterdir()
        if not path.name.startswith("__")
    }
    assert {path for path in shown if path.startswith("app/")} - {"app/"} == real


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_commands_and_settings_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for target, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", text):
        folder = ROOT if page.parent.name == "tools" else page.parent  # tools/readme.md becomes README.md
        there = folder / target if target else page
        assert there.exists(), target
        anchors = re.findall(r"(?m)^#+-(.*)", there.read_text().lower().replace(" ", "-")) if heading else [""]
        assert heading in anchors
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)) <= TARGETS
    assert set(re.findall(rf"\b(?:{GROUPS})_[A-Z_]+\b", text)) <= variables(Settings).keys()
    for path in PATH.findall(FENCE.sub("", text)):
        assert MADE_UP.search(path) or any(ROOT.glob(path)), path
    for factors, product in re.findall(r"(\d+(?: × \d+)+) = (\d+)", text):
        assert prod(map(int, factors.split(" × "))) == int(product), factors


def test_the_connections_in_the_pages_are_the_defaults() -> None:
    fields = DatabaseSettings.model_fields
    changes, reads = fields["pool_size"].default, fields["read_pool_size"].default
    each, exports = changes + reads + 1, fields["exports"].default
    page = (ROOT / "docs/plinth/scaling.md").read_text()
    assert f" {changes} + {reads} + 1 = {each}." in page
    assert f"`DATABASE_EXPORTS` ({exports})" in page
    assert f"× {each + exports + 1} must fit" in (ROOT / "docs/plinth/platforms.md").read_text()


async def test_the_autoscaler_by_the_queue_counts_the_jobs_that_run_or_wait(database_url: str) -> None:
    page = (ROOT / "deploy/kubernetes/README.md").read_text()
    [scaled] = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```", page)]
    base = ROOT / "deploy/kubernetes/base/worker"
    deployment = yaml.safe_load((base / "deployment.yaml").read_text())
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    [trigger] = scaled["spec"]["triggers"]
    jobs_at_a_time = dict(line.split("=") for line in (base / "settings.env").read_text().splitlines() if "=" in line)
    assert int(trigger["metadata"]["targetQueryValue"]) == 2 * int(jobs_at_a_time["JOB_CONCURRENCY"])
    connection = await asyncpg.connect(database_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        before = await connection.fetchval(trigger["metadata"]["query"])
        for state, delay in (("queued", -1), ("running", -1), ("queued", 60), ("succeeded", -1), ("dead", -1)):
            await connection.execute(
                "INSERT INTO plinth_jobs (id, name, queue, state, payload, run_at)"
                " VALUES (gen_random_uuid(), 'counted', 'default', $1, '{}', now() + $2::int * interval '1 second')",
                state,
                delay,
            )
        assert await connection.fetchval(trigger["metadata"]["query"]) == before + 2
        await transaction.rollback()
    finally:
        await connection.close()


def test_its_make_targets_exist() -> None:
    assert set(re.findall(r"`make ([a-z-]+)`", README)) == TARGETS - {"help", "environment", "lock-template"}


def test_it_lists_every_app_command() -> None:
    shown = subprocess.check_output([sys.executable, "-m", "app", "--help"], cwd=ROOT, text=True)
    commands = set(re.findall(r"^│ (\w[\w-]*) ", shown, re.MULTILINE))
    assert set(re.findall(r"`app (\w[\w-]*)`", README)) == commands != set()
    for page in PAGES:
        assert set(re.findall(r"`app (\w[\w-]*)", page.read_text())) <= commands, page


def test_every_command_that_the_readme_shows_is_run_by_a_test() -> None:
    """Each curl below, `make run` by test_run.py, `make test` and `app new` by the drill."""
    shown = re.findall(r"(?m)^\$ (\S+ \S+)", README)
    assert [each for each in shown if not each.startswith("curl ")] == [
        "make run",
        "make test",
        *[".venv/bin/app new"] * 2,
    ]
    assert len([each for each in shown if each.startswith("curl ")]) == 2


def test_the_page_for_agents_is_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text().splitlines()) <= 60


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_the_hooks_before_a_commit_pass(hook: dict[str, Any]) -> None:
    files = ["tests/tools/test_readme.py"] if hook.get("pass_filenames", True) else []
    done = subprocess.run([*shlex.split(hook["entry"]), *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_examples_of_caching_answer_as_shown(service: Service, settings: Settings, accounts: None) -> None:
    page = (ROOT / "docs/plinth/caching.md").read_text()
    async with service.state["database"].sessions.begin() as session:
        await load_example_data(session, 10)
    await service.state["cache"].invalidate(tags.PRODUCTS, tags.PRODUCT(7), tags.PRODUCT(8), tags.CATEGORIES)
    examples = re.findall(r"\$ curl (.+)\nHTTP/1.1 (\d+)", page)
    etag, token = "", token_of(settings, Role.EDITOR)
    async with service.client() as client:
        for command, status in examples:
            words = shlex.split(command.replace("$ETAG", etag.replace('"', r"\"")).replace("$TOKEN", token))
            options = list(pairwise(words))
            answer = await client.request(
                next((value for name, value in options if name == "-X"), "GET"),
                words[-1].removeprefix("http://127.0.0.1:8000"),
                headers=dict(value.split(": ", 1) for name, value in options if name == "-H"),
                content=next((value for name, value in options if name == "-d"), None),
            )
            assert answer.status_code == int(status), command
            etag = answer.headers.get("ETag", etag)
    assert len(examples) == 7


async def test_its_example_answers_as_shown(service: Service, empty_tables: None) -> None:
    example = re.search(r"\$ curl (\S+)\n(.*)\n", README)
    assert example
    async with service.state["database"].sessions.begin() as session:
        await load_example_data(session, 10_000)
    url = shlex.split(example[1])[0].removeprefix("http://127.0.0.1:8000")
    async with service.client() as client:
        answered = (await client.get(url)).json()
    assert without_instants(answered) == without_instants(json.loads(example[2]))


async def test_its_login_answers_as_shown(anonymous: AsyncClient) -> None:
    example = re.search(r"\$ curl (-d .*) \S+(/api/auth/\S+)\n(.*)\n", README)
    assert example
    options = shlex.split(example[1])
    headers = dict([options[options.index("-H") + 1].split(": ")])
    answer = await anonymous.post(example[2], content=options[options.index("-d") + 1], headers=headers)
    assert answer.status_code == 200, answer.text
    shown, answered = json.loads(example[3]), answer.json()
    assert {**shown, **dict.fromkeys(SECRETS, "…")} == {**answered, **dict.fromkeys(SECRETS, "…")}
    for name in SECRETS:
        assert answered[name].startswith(shown[name].removesuffix("…"))


def without_instants(answer: dict[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    return [{key: value for key, value in item.items() if not key.endswith("_at")} for item in answer["items"]]
