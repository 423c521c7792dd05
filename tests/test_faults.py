"""A few rows of the matrix of faults (tests/faults), with little traffic: `make test-faults` has all of it.

A busy machine may answer late and refuse more, so that only what must never be counts here: what was acknowledged is
stored once, nothing that was refused is stored, no answer is an error of ours or that of another request.
"""

from pathlib import Path

from tests.faults.matrix import observe
from tests.faults.rows import ROWS
from tests.faults.service import running
from tests.faults.traffic import NO_ANSWER

NAMES = {"PostgreSQL killed", "PostgreSQL silent", "Redis half-open", "Processes a worker killed"}
REQUESTS_PER_SECOND = 40
SECONDS = 2.0


def test_some_faults(tmp_path: Path) -> None:
    rows = [row for row in ROWS if str(row) in NAMES]
    assert len(rows) == len(NAMES)
    with running(tmp_path / "servers") as service:
        service.warm()
        for row in rows:
            found = observe(service, row, REQUESTS_PER_SECOND, SECONDS, after_seconds=1)
            answers = [*found.before, *found.during, *found.recovering, *found.after]
            assert found.during, row
            assert [each for each in answers if each.status in {NO_ANSWER, 500} or not each.is_ours] == [], row
            service.wait_until_idle()
        service.wait_until_jobs_are_done()
        assert service.ledger.acknowledged
        assert service.ledger.faults(service.stored()) == {}
        assert service.job_faults() == {}
