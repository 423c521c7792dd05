"""Workers come and go under load, and no request fails but those in a worker that was killed."""

import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from plinth.testing.environment import ROOT
from tests.plinth.serving.conftest import STARTED, Serve, load_on


def test_a_reload_fails_no_request(serve: Serve) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Worker exiting", times=2)
        load.wait_for_answers(1000)
        assert not load.failures
        assert load.closed >= load.connections
        # Nobody left before both successors served.
        assert server.said.index("Leaving") > [*_places(server.said, STARTED)][3]


async def test_a_reload_does_not_mind_a_database_that_is_away(
    serve: Serve, database_url: str, onlooker: asyncpg.Connection, worker: str
) -> None:
    """Only a start does."""
    role = f"plinth_reloaded_{worker}"
    limited = make_url(database_url).set(username=role).render_as_string(hide_password=False)
    await onlooker.execute(f"CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}")
    try:
        with serve(DATABASE_URL=limited) as server:
            await onlooker.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(STARTED, times=2)
            assert "cannot be reached yet" in server.said
    finally:
        await onlooker.execute(f"DROP ROLE {role}")


def test_a_worker_that_is_stopped_alone_serves_until_it_is_replaced(serve: Serve) -> None:
    with serve() as server, load_on(server) as load:
        for stopped in (1, 2):
            os.kill(server.workers()[-1], signal.SIGTERM)
            server.wait_for("Worker exiting", times=stopped)
        load.wait_for_answers(1000)
        assert not load.failures
        started, left = ([*_places(server.said, text)] for text in (STARTED, "Leaving"))
        assert started[1] < left[0] < started[2] < left[1]


def test_fewer_workers_remain_when_fewer_are_wanted(serve: Serve) -> None:
    with serve(workers=2) as server:
        server.process.send_signal(signal.SIGTTOU)
        server.wait_for("Worker exiting")
        os.kill(server.workers()[0], signal.SIGTERM)
        server.wait_for("Worker exiting", times=2)
        server.wait_for(STARTED, times=3)
        assert len(server.workers()) == 1


def test_a_reload_of_code_that_is_broken_leaves_those_who_serve(serve: Serve, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text("from app.main import app")
    argv = ("gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "--chdir", str(tmp_path), "changing:app")
    with serve(argv, SERVER_GRACEFUL_TIMEOUT_SECONDS="2") as server:
        module.write_text("from nowhere import app")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("exited with code 1")
        assert httpx.get(f"{server.address}/health/live").status_code == 200
        module.write_text("from app.main import app, lifespan")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Worker exiting", times=2)
        assert httpx.get(f"{server.address}/health/live").status_code == 200


def test_a_worn_worker_waits_for_its_turn_and_its_successor(serve: Serve) -> None:
    with serve(workers=2, SERVER_MAX_REQUESTS="1000") as server, load_on(server) as load:
        server.wait_for("Worker exiting", times=3)
        load.wait_for_answers(1000)
        assert not load.failures
        started = [*_places(server.said, STARTED)]
        for already, place in enumerate(_places(server.said, "Leaving")):
            serving = sum(each < place for each in started) - already
            assert serving == 3


def test_a_killed_worker_loses_no_more_than_its_own_requests(serve: Serve) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_for(STARTED, times=3)
        load.wait_for_answers(1000)
        assert sum(load.failures.values()) <= load.connections


def test_workers_whose_master_was_killed_make_room_for_the_next(serve: Serve) -> None:
    with serve(workers=2) as server:
        place = urlsplit(server.address)
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait_for("Application shutdown complete", times=2)
        with socket.create_server((place.hostname or "", place.port or 0)):
            pass


def test_code_that_blocks_is_named_while_it_does(serve: Serve) -> None:
    with _blocking(serve) as server:
        httpx.get(f"{server.address}/block?seconds=1.5", timeout=30)
        server.wait_for(r"The event loop is blocked by \S+/blocking.py:\d+ in block")
        server.wait_for(r"The event loop was blocked for 1.\d s")


def test_a_worker_that_hangs_is_replaced_and_shows_where_it_was(serve: Serve) -> None:
    with _blocking(serve, SERVER_TIMEOUT_SECONDS="2") as server:
        hanging = socket.create_connection(urlsplit(server.address).netloc.split(":"))
        with hanging:
            hanging.sendall(b"GET /block?seconds=1000 HTTP/1.1\r\nHost: here\r\n\r\n")
            server.wait_for("WORKER TIMEOUT")
            server.wait_for(r"blocking.py\", line \d+ in block")
            server.wait_for(STARTED, times=2)
        assert httpx.get(f"{server.address}/health/live").status_code == 200


def test_garbage_is_not_looked_for_where_there_is_none(serve: Serve) -> None:
    with _blocking(serve) as server:
        while_imported, now, threshold, frozen = httpx.get(f"{server.address}/collector").json()
        assert (while_imported, now, threshold) == (False, True, 10_000)
        assert frozen > 50_000  # whatever was imported


def _places(text: str, part: str) -> list[int]:
    return [place for place in range(len(text)) if text.startswith(part, place)]


def _blocking(serve: Serve, **environment: str):  # type: ignore[no-untyped-def]
    config = ROOT / "gunicorn.conf.py"
    return serve(("gunicorn", "--config", str(config), "tests.plinth.serving.blocking:app"), **environment)
