"""/metrics of several workers, over real sockets."""

import signal
from collections.abc import Iterator

import httpx
import pytest

from plinth.testing.network import reserved_port
from tests.faults.scraping import PROBES, metrics_folder, probes, scrape, until
from tests.plinth.serving.conftest import STARTED, Serve


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


def test_each_worker_reports_all_of_them_on_a_port_of_its_own(serve: Serve, port: int) -> None:
    with serve(workers=2, METRICS_PORT=str(port)) as server:
        metrics = f"http://127.0.0.1:{port}/metrics"
        for _ in range(20):
            with server.connect() as client:  # each connection is accepted by either worker
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
                assert client.recv(10_000).startswith(b"HTTP/1.1 200")
        until(lambda: probes(metrics) == 20)
        assert {probes(metrics) for _ in range(10)} == {20}
        until(lambda: scrape(metrics)["service_processes"] == [({"kind": "web"}, 2)])
        # Scrapes are not requests of the service, and nothing else is served there.
        assert [labels for labels, _ in scrape(metrics)["http_requests_total"]] == [PROBES]
        answer = httpx.get(f"http://127.0.0.1:{port}/health/live")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
        assert "GET /metrics" not in server.output


def test_the_port_of_the_service_needs_the_token(serve: Serve) -> None:
    with serve(workers=2, METRICS_TOKEN="secret") as server:
        metrics = f"{server.address}/metrics"
        refused = httpx.get(metrics)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert httpx.get(metrics, headers={"Authorization": "Bearer secreT"}).status_code == 401
        assert scrape(metrics, Authorization="Bearer secret")["service_processes"]


def test_what_replaced_workers_have_counted_remains(serve: Serve, port: int) -> None:
    with serve(workers=2, METRICS_PORT=str(port), SERVER_MAX_REQUESTS="20") as server:
        metrics, sent = f"http://127.0.0.1:{port}/metrics", 0
        while server.output.count("Worker exiting") < 4:
            assert httpx.get(f"{server.address}/health/live").status_code == 200
            sent += 1
            assert probes(metrics) <= sent
        until(lambda: probes(metrics) == sent)
        server.wait_for(STARTED, times=6)
        until(lambda: scrape(metrics)["service_processes"] == [({"kind": "web"}, 2)])
        folder = metrics_folder(server.workers()[-1])
        # Of the master, two workers, and the archive of all others.
        until(lambda: len([*folder.glob("counter_*.db")]) <= 4)
        assert (folder / "counter_archive.db").exists()
        server.process.send_signal(signal.SIGTERM)
        server.wait_until_exited()
        assert not folder.exists()
