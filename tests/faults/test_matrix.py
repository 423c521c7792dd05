"""Each row of the matrix, on one service that goes through all of them."""

import os
import signal
from collections.abc import Iterator
from time import sleep

import pytest

from tests.faults import service as servers
from tests.faults.matrix import examine
from tests.faults.report import record
from tests.faults.rows import ROWS, Row
from tests.faults.service import Service
from tests.faults.serving import LIMIT_SECONDS
from tests.faults.traffic import LOST


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with servers.running(tmp_path_factory.mktemp("faults")) as service:
        yield service


@pytest.fixture(scope="module")
def rate(service: Service) -> float:
    """Half of what the service can answer."""
    capacity = service.capacity()
    rate = capacity / 2
    record("Load", "capacity", "", {"capacity": f"{capacity:.0f} a second", "traffic": f"{rate:.0f} a second"})
    return rate


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, service: Service, rate: float, capsys: pytest.CaptureFixture[str]) -> None:
    figures, faults = examine(service, row, rate)
    record(row.group, row.name, row.promise, figures)
    with capsys.disabled():
        print(f"\n{row}: {figures}", *faults, sep="\n  ")  # noqa: T201 - the suite is run for these figures
    assert not faults


def test_the_service_stops_and_nothing_acknowledged_is_lost(
    service: Service, rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM while there is traffic: whoever was accepted is answered, and the ledger of the whole run is right."""
    with service.traffic(rate) as traffic:
        sleep(2)
        service.server.process.send_signal(signal.SIGTERM)
        service.server.wait_until_exited()
    assert service.server.process.returncode == 0
    refused = [answer for answer in traffic.answers if not answer.is_good and answer.status != LOST]
    assert not refused
    service.wait_until_jobs_are_done()
    mails = service.mails.received if service.mails else []
    figures = {"writes": str(service.ledger), "mails": f"{len(mails)} with {len({*mails})} Message-IDs"}
    record("Processes", "all writes of this run", "None is lost, stored although it was refused, or doubled.", figures)
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201
    assert service.ledger.faults(service.stored()) == {}
    assert service.job_faults() == {}
    if service.mails:
        os.kill(service.worker.pid, signal.SIGTERM)
        assert service.worker.wait(LIMIT_SECONDS) == 0
