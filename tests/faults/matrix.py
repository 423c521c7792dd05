"""Runs a row of the matrix: traffic before, during and after the fault, and what has to be true of all rows."""

import re
from collections import Counter
from math import ceil
from time import perf_counter, sleep

from tests.faults.observation import Observation, figures_of
from tests.faults.rows import Row
from tests.faults.service import Service
from tests.faults.traffic import LIMIT_PER_SECOND, LOST, Answer

BEFORE_SECONDS = 2.0
RECOVERY_SECONDS = 5.0
AFTER_SECONDS = RECOVERY_SECONDS + 2.0
ENOUGH = 1000
NEVER_SHED = {"cached", "health"}
LINES = 200
ROUTINE = re.compile(r" app\.access |Answering 503")
"""What the log has of each request: it does not say why a row has failed."""


def observe(
    service: Service, row: Row, rate: float, seconds: float, after_seconds: float = AFTER_SECONDS
) -> Observation:
    """Cause the fault for `seconds`, while there is traffic."""
    with service.traffic(rate) as traffic:
        started = perf_counter()
        sleep(BEFORE_SECONDS)
        began = perf_counter()
        row.fault(service, seconds)
        ended = perf_counter()
        sleep(after_seconds)
        traffic_seconds = perf_counter() - started
    recovered = ended + RECOVERY_SECONDS

    # A request that is due at the last moment before may arrive after it.
    def between(start: float, end: float) -> list[Answer]:
        return [answer for answer in traffic.answers if start <= answer.due < end]

    return Observation(
        between(0, began - 0.2),
        between(began, ended),
        between(recovered, float("inf")),
        between(ended, recovered),
        began,
        ended,
        traffic.cpu_seconds / traffic_seconds,
    )


def examine(service: Service, row: Row, rate: float, enough: int = ENOUGH) -> tuple[dict[str, str], list[str]]:
    """Return the figures, and what of the promise was not kept."""
    service.warm()
    workers, logged = service.server.workers(), len(service.server.output)
    found = observe(service, row, rate, max(row.seconds, 1.1 * enough / rate))
    faults = [*faults_of(row, found, enough)]
    faults += [f"{name}: {numbers[:5]}" for name, numbers in service.ledger.faults(service.stored()).items()]
    service.wait_until_idle()
    if (replaced := len(set(workers) - set(service.server.workers()))) != row.replaced:
        faults.append(f"{replaced} workers were replaced")
    if faults:
        lines = service.server.output[logged:].splitlines()
        print(*[line for line in lines if not ROUTINE.search(line)][:LINES], sep="\n")  # noqa: T201 - for pytest
    return figures_of(found), faults


def faults_of(row: Row, found: Observation, enough: int) -> list[str]:
    """What is wrong with the answers."""
    meanwhile = [*found.during, *found.recovering]
    everything = [*found.before, *meanwhile, *found.after]
    bad = [answer for answer in meanwhile if not answer.is_good]
    lost = [answer for answer in bad if answer.status == LOST]
    refusals = [answer for answer in bad if answer.status in {503, 504} and answer.kind in row.refused]
    # A worker that has just ended all that waited for PostgreSQL is late, which it takes for overload for a moment.
    others = {*bad} - {*lost, *refusals}
    shed = [each for each in others if each.status == 503 and each.kind not in NEVER_SHED and is_clear(each)]
    if len(shed) > row.shed * len(meanwhile):
        shed = []
    accepted = sum(answer.kind == "limited" and answer.status == 200 for answer in found.during)
    late = [answer for answer in meanwhile if answer.seconds > row.longest_seconds]
    wrong = {
        "not answered at the time": [each for each in (*found.before, *found.after) if not each.is_good],
        "must be answered": [*(others - {*shed})],
        "lost": lost if len(lost) > row.lost else [],
        "belong to another request": [answer for answer in everything if not answer.is_ours],
        "are no problem that says when to retry": [answer for answer in refusals if not is_clear(answer)],
        f"took longer than {row.longest_seconds} s": late,
        "are not cached again": [each for each in found.after if each.kind == "cached" and each.cache != "hit"],
    }
    faults = [f"{len(answers)} {name}: {shown(answers)}" for name, answers in wrong.items() if answers]
    if len(found.during) < enough:
        faults.append(f"only {len(found.during)} requests were due")
    faults += row.faults_of(found)
    # Windows are whole seconds, of which one may be counted twice where the limit moves from Redis to the workers.
    if accepted > 2 * LIMIT_PER_SECOND * (ceil(found.seconds) + 1):
        faults.append(f"{accepted} requests were accepted in spite of their limit")
    return faults


def is_clear(answer: Answer) -> bool:
    """Whether a refusal is a problem that says when to try again, or that it is unknown what became of the change."""
    return answer.is_problem and (answer.status == 504 or answer.is_unknown or bool(answer.retry_after))


def shown(answers: list[Answer]) -> str:
    kinds = Counter((answer.kind, answer.status) for answer in answers)
    seconds = max(answer.seconds for answer in answers)
    return f"{dict(kinds)}, at most {seconds:.2f} s, {[answer.number for answer in answers[:3]]}"
