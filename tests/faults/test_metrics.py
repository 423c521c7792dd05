"""Counters under recycling: no request is lost or counted twice, and the files of dead workers do not pile up."""

from plinth.testing.environment import ROOT
from plinth.testing.network import reserved_port
from tests.faults.live_app import PATH
from tests.faults.scraping import metrics_folder, probes, scrape, until
from tests.faults.serving import Serve, load_on

RECYCLES = 50
ARGV = "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "tests.faults.live_app:app"
# Of the master, of two workers, of one that starts and one that ends, and the archive.
MOST_FILES = 6


def test_counters_equal_the_requests_after_fifty_recycles(serve: Serve) -> None:
    seen: list[float] = []
    with reserved_port() as port, serve(ARGV, 2, SERVER_MAX_REQUESTS="500", METRICS_PORT=str(port)) as server:
        url = f"http://127.0.0.1:{port}/metrics"
        folder = metrics_folder(server.workers()[-1])
        with load_on(server, PATH, connections=4) as load:
            while server.output.count("Worker exiting") < RECYCLES:
                load.wait_for_answers(100)
                seen.append(probes(url))
                assert len([*folder.glob("counter_*.db")]) <= MOST_FILES
        assert not load.failures
        until(lambda: probes(url) >= load.answered)
        assert probes(url) == load.answered
        assert seen == sorted(seen), "a counter fell"
        until(lambda: scrape(url)["service_processes"] == [({"kind": "web"}, 2)])
        # What a scrape reads is bounded, however many workers there were: four kinds of files of the master and of two
        # workers, and two archives. So its time is, too.
        until(lambda: len([*folder.glob("*.db")]) <= 4 * 3 + 2)
