"""The profile of a request in place of its response, and of a process by `app profile`."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient
from pydantic import SecretStr
from starlette.types import ASGIApp

from app.main import create_app
from app.settings import Settings
from plinth.telemetry import ProfileMiddleware, cli
from plinth.telemetry.settings import ProfileSettings
from plinth.testing.client import Service, serve
from plinth.testing.environment import child_environment
from tests.faults.serving import load_on
from tests.plinth.telemetry.conftest import Start
from tests.plinth.telemetry.traced import router

TOKEN = "a-token-of-some-length"
# They differ from one response to the next.
VARYING = {"x-process-time", "x-request-id", "date"}


@pytest.fixture(scope="module")
async def service(settings: Settings) -> AsyncIterator[Service]:
    profile = ProfileSettings(requests=True, token=SecretStr(TOKEN))
    http = settings.http.model_copy(update={"deadline_seconds": 1.0})
    app = create_app(settings.model_copy(update={"profile": profile, "http": http}))
    app.include_router(router)
    async with serve(app) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(service), base_url="http://localhost") as client:
        yield client


def asks(kind: str = "1", token: str = TOKEN) -> dict[str, str]:
    return {"X-Profile": kind, "X-Profile-Token": token}


async def test_the_answer_is_a_page_that_names_what_took_the_time(client: AsyncClient) -> None:
    page = await client.get("/traced/burn", headers=asks())
    assert (page.status_code, page.headers["x-profile-status"]) == (200, "200")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-store"
    assert "script" not in page.headers["content-security-policy"]
    assert "default-src" not in page.headers["content-security-policy"]
    assert page.headers["x-request-id"]
    assert "burn" in page.text
    assert "etag" not in page.headers


async def test_a_speedscope_file_has_the_same(client: AsyncClient) -> None:
    response = await client.get("/traced/burn", headers=asks("speedscope"))
    assert response.headers["content-type"] == "application/json"
    assert "burn" in {frame["name"] for frame in response.json()["shared"]["frames"]}


async def test_requests_are_profiled_at_the_same_time_and_each_shows_its_own(client: AsyncClient) -> None:
    async def names(path: str) -> set[str]:
        response = await client.get(path, headers=asks("speedscope"))
        return {frame["name"] for frame in response.json()["shared"]["frames"]}

    # The first waits for the database while the second burns.
    waiting, burning = await asyncio.gather(names("/traced/cached"), names("/traced/burn"))
    assert "burn" in burning
    assert "burn" not in waiting


async def test_a_cached_response_is_made_for_the_profile(client: AsyncClient) -> None:
    async def cached() -> bool:
        return (await client.get("/traced/cached")).headers["x-cache"] == "hit"

    for _ in range(5):  # on a slow machine Redis may be late, so that one of them is a miss
        while not await cached():
            pass
        response = await client.get("/traced/cached", headers=asks("speedscope"))
        assert "handle" in {frame["name"] for frame in response.json()["shared"]["frames"]}
        if await cached():  # it was neither discarded nor replaced
            return
    raise AssertionError


async def test_a_problem_is_profiled_and_a_stream_is_cut_off_at_the_deadline(client: AsyncClient) -> None:
    assert (await client.get("/traced/missing", headers=asks())).headers["x-profile-status"] == "404"
    endless = await client.get("/traced/endless", headers=asks("speedscope"))
    assert (endless.status_code, endless.headers["x-profile-status"]) == (200, "200")
    assert "parts" in {frame["name"] for frame in endless.json()["shared"]["frames"]}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Profile": "1"},
        asks(token=""),
        asks(token=TOKEN + "x"),
        asks(token=TOKEN[:-1]),
        {"X-Profile-Token": TOKEN},
        asks("yes"),
        asks("0"),
    ],
)
async def test_otherwise_the_response_is_what_it_is_without_profiles(
    client: AsyncClient, settings: Settings, headers: dict[str, str]
) -> None:
    app = create_app(settings)
    app.include_router(router)
    async with (
        serve(app) as plain,
        AsyncClient(transport=ASGITransport(plain.app), base_url="http://localhost") as other,
    ):
        for method in ("GET", "HEAD"):
            sent = headers | {"X-Request-ID": "r-3"}
            response = await client.request(method, "/traced/missing", headers=sent)
            expected = await other.request(method, "/traced/missing", headers=sent)
            assert [pair for pair in response.headers.raw if pair[0].decode() not in VARYING] == [
                pair for pair in expected.headers.raw if pair[0].decode() not in VARYING
            ]
            assert (response.status_code, response.content) == (expected.status_code, expected.content)


async def test_head_is_never_profiled(client: AsyncClient) -> None:
    response = await client.head("/traced/burn", headers=asks())
    assert response.status_code == 200
    assert "x-profile-status" not in response.headers


async def test_without_a_token_the_header_is_enough(settings: Settings) -> None:
    app: ASGIApp = ProfileMiddleware(create_app(settings), ProfileSettings(requests=True), seconds=5)
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.get("/health/live", headers={"X-Profile": "1"})).headers["x-profile-status"] == "200"
        assert "x-profile-status" not in (await client.get("/health/live")).headers


def test_production_needs_a_token_of_some_length() -> None:
    def faults(**values: Any) -> list[str]:
        return [fault.partition(":")[0] for fault in ProfileSettings(**values).production_faults()]

    assert faults(requests=True) == faults(requests=True, token="short") == ["PROFILE_TOKEN"]
    assert faults() == faults(requests=True, token=TOKEN) == []


def profile(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "profile", *arguments]
    return subprocess.run(command, cwd=folder, env=child_environment(), capture_output=True, text=True, check=False)


def test_a_running_worker_is_sampled_into_a_flame_graph_or_a_speedscope_file(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as served, load_on(served, "/traced/burn?seconds=0.001"):
        monkeypatch.setattr(cli, "CONFIGURATION", tmp_path / "gunicorn.conf.py")
        [worker] = served.workers()
        assert cli.workers() == [worker]
        for output in ("profile.json", "profile.svg"):
            done = profile("--pid", str(worker), "--seconds", "1", "--output", output, folder=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"Process {worker} was sampled for 1 s: {output}\n"
    frames = json.loads((tmp_path / "profile.json").read_text())["shared"]["frames"]
    assert "burn" in {frame["name"] for frame in frames}
    graph = (tmp_path / "profile.svg").read_text()
    assert "<svg" in graph
    assert "burn (" in graph


def test_where_it_cannot_be_sampled_a_sentence_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(pid: int | None = None) -> str:
        with pytest.raises(SystemExit) as end:
            cli.profile(None, pid=pid, seconds=1, output=tmp_path / "profile.svg")  # type: ignore[arg-type]
        return str(end.value)

    monkeypatch.setattr(cli, "CONFIGURATION", tmp_path / "gunicorn.conf.py")
    assert refusal() == "No worker of `app serve` runs here; name another process by --pid."
    assert refusal(2**22 + 1).startswith("py-spy failed: Error: Failed to get process executable name.")
    monkeypatch.setattr(cli, "PROC", tmp_path / "none")
    assert refusal() == "Workers can be found on Linux alone; name one by --pid."
    # It is what py-spy 0.4 prints to an unprivileged user.
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho 'Permission Denied: Try running again with elevated permissions' >&2\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert "docker compose exec --privileged" in refusal(os.getpid())
    spy.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal() == "py-spy is not installed; install the extra `profiling`."
