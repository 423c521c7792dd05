"""Workers start and stop under load, and no request fails but those in a worker that was killed."""

import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from tests.plinth.serving.conftest import STARTED, STOPPING, Serve, load_on, own_app


def test_a_reload_fails_no_request(serve: Serve) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Worker exiting", times=2)
        load.wait_for_answers(1000)
        assert not load.failures
        assert load.closed >= load.connections
        both_successors_serve = positions(server.output, STARTED)[3]
        assert server.output.index(STOPPING) > both_successors_serve


async def test_a_reload_succeeds_while_the_database_is_away(
    app_serve: Serve, database_url: str, onlooker: asyncpg.Connection, worker: str
) -> None:
    role = f"plinth_reloaded_{worker}"
    limited = make_url(database_url).set(username=role).render_as_string(hide_password=False)
    await onlooker.execute(f"CREATE ROLE {role} LOGIN; GRANT pg_read_all_data TO {role}")
    try:
        with app_serve(DATABASE_URL=limited) as server:
            await onlooker.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(STARTED, times=2)
            assert "cannot be reached yet" in server.output
    finally:
        await onlooker.execute(f"DROP ROLE {role}")


def test_a_worker_that_is_stopped_alone_serves_until_its_successor_does(serve: Serve) -> None:
    with serve() as server, load_on(server) as load:
        for stopped in (1, 2):
            os.kill(server.workers()[-1], signal.SIGTERM)
            server.wait_for("Worker exiting", times=stopped)
        load.wait_for_answers(1000)
        assert not load.failures
        started, stopping = (positions(server.output, text) for text in (STARTED, STOPPING))
        assert started[1] < stopping[0] < started[2] < stopping[1]


def test_fewer_workers_remain_when_fewer_are_wanted(serve: Serve) -> None:
    with serve(workers=2) as server:
        server.process.send_signal(signal.SIGTTOU)
        server.wait_for("Worker exiting")
        os.kill(server.workers()[0], signal.SIGTERM)
        server.wait_for("Worker exiting", times=2)
        server.wait_for(STARTED, times=3)
        assert len(server.workers()) == 1


def test_a_reload_of_broken_code_keeps_the_workers_that_serve(serve: Serve, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text("from app.main import app")
    with serve("--chdir", str(tmp_path), "changing:app", SERVER_GRACEFUL_TIMEOUT_SECONDS="2") as server:
        module.write_text("from nowhere import app")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("exited with code 1")
        assert httpx.get(f"{server.address}/health/live").status_code == 200
        module.write_text("from app.main import app, lifespan")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("Worker exiting", times=2)
        assert httpx.get(f"{server.address}/health/live").status_code == 200


def test_a_worker_with_max_requests_waits_for_its_turn_and_its_successor(serve: Serve) -> None:
    with serve(workers=2, SERVER_MAX_REQUESTS="1000") as server, load_on(server) as load:
        server.wait_for("Worker exiting", times=3)
        load.wait_for_answers(1000)
        assert not load.failures
        started = positions(server.output, STARTED)
        for stopped_before, position in enumerate(positions(server.output, STOPPING)):
            serving = sum(each < position for each in started) - stopped_before
            assert serving == 3


def test_a_killed_worker_fails_only_its_own_requests(serve: Serve) -> None:
    with serve(workers=2) as server, load_on(server) as load:
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait_for(STARTED, times=3)
        load.wait_for_answers(1000)
        assert sum(load.failures.values()) <= load.connections


def test_workers_release_the_port_after_their_master_was_killed(serve: Serve) -> None:
    with serve(workers=2) as server:
        place = urlsplit(server.address)
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait_for("Application shutdown complete", times=2)
        with socket.create_server((place.hostname or "", place.port or 0)):
            pass


@pytest.mark.parametrize(
    "hook",
    [
        "import types; when_ready = lambda _: fleet.when_ready(types.SimpleNamespace(WORKERS={}))",
        "import types; when_ready = lambda _: fleet.when_ready(types.SimpleNamespace(num_workers=1))",
        # Gunicorn would set its handlers after the hook, and so replace the drain.
        "import signal; when_ready = lambda arbiter: (fleet.on_starting(arbiter), fleet.when_ready(arbiter))",
    ],
    ids=["num_workers", "WORKERS", "signals"],
)
def test_on_an_unknown_gunicorn_workers_stop_as_its_own_do(serve: Serve, hook: str) -> None:
    with serve(hook=hook, SERVER_DRAIN_SECONDS="1000") as server:
        server.wait_for("this version of Gunicorn is unknown")
        os.kill(server.workers()[0], signal.SIGTERM)
        server.wait_for(STARTED, times=2)
        stopped_before_its_successor_started = positions(server.output, STOPPING)[0]
        assert stopped_before_its_successor_started < positions(server.output, STARTED)[1]
        server.process.send_signal(signal.SIGTERM)
        server.wait_until_exited()


def test_code_that_blocks_is_logged_while_it_does(serve: Serve) -> None:
    with own_app(serve) as server:
        httpx.get(f"{server.address}/block?seconds=1.5", timeout=30)
        server.wait_for(r"The event loop is blocked by \S+/blocking.py:\d+ in block")
        server.wait_for(r"The event loop was blocked for 1.\d s")


def test_a_worker_that_hangs_is_replaced_and_its_stack_printed(serve: Serve) -> None:
    # Longer than a worker takes to import the app on a busy machine, during which it cannot send a heartbeat either.
    with own_app(serve, SERVER_TIMEOUT_SECONDS="6") as server:
        with server.connect() as hanging:
            hanging.sendall(b"GET /block?seconds=1000 HTTP/1.1\r\nHost: here\r\n\r\n")
            server.wait_for("WORKER TIMEOUT")
            server.wait_for(r"blocking.py\", line \d+ in block")
            server.wait_for(STARTED, times=2)
        assert httpx.get(f"{server.address}/health/live").status_code == 200


def test_the_garbage_collector_skips_what_was_imported(serve: Serve) -> None:
    with own_app(serve) as server:
        during_import, now, threshold, frozen = httpx.get(f"{server.address}/collector").json()
        assert (during_import, now, threshold) == (False, True, 10_000)
        assert frozen > 50_000


def positions(text: str, part: str) -> list[int]:
    return [position for position in range(len(text)) if text.startswith(part, position)]
