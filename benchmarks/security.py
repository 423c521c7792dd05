"""`make bench-security`: does the time of a refused login show which accounts exist? Do many at once disturb others?

The lockout and the rate limit are on: each account is used a few times only, and the limit is as high as the rate.
"""

import json
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median

from app.example_data import EXAMPLE_PASSWORD
from benchmarks.compare import PRODUCTS
from benchmarks.figures import at_most, table
from benchmarks.load import Load, load
from benchmarks.measure import show, write_lines
from benchmarks.scenarios import BY_ID, PING
from benchmarks.servers import Server
from benchmarks.testbed import Testbed, testbed
from plinth.security import AuthSettings
from plinth.testing.locks import SetupError
from plinth.testing.network import LOOPBACK

SAMPLES = 1000
"""Of each kind. With a thousand of two kinds each, equal times have an AUC above 0.55 once in ten thousand runs."""
WARM_UP = 20
LIMIT = 0.55
KNOWN, INACTIVE, UNKNOWN = "known", "inactive", "unknown"
WRONG_PASSWORD = "not-testpass123"

PLACES = AuthSettings.model_fields["most_waiting"].default
SECONDS = 10

ADD_ACCOUNTS = """
    INSERT INTO users (email, name, password_hash, is_active)
    SELECT '{kind}-' || number || '@example.com', name, password_hash, {is_active}
    FROM users, generate_series(1, {count}) AS number WHERE email = 'test@example.com'
"""


def security() -> int:
    """Returns the exit code: 1 if accounts can be told apart, or if a request failed that should not have."""
    with testbed(PRODUCTS) as bed:
        bed.execute(
            ADD_ACCOUNTS.format(kind=KNOWN, is_active=True, count=SAMPLES),
            ADD_ACCOUNTS.format(kind=INACTIVE, is_active=False, count=SAMPLES),
            "VACUUM ANALYZE users",
        )
        app = bed.app()
        rows, found = judged_times(refusal_times(app))
        show(f"{table(['refused login', 'median ms', 'AUC', 'target'], rows)}\n")
        crowds = [crowd(bed, app, clients) for clients in (0, PLACES, 2 * PLACES)]
        show(table(CROWD_HEAD, [crowd_row(each) for each in crowds]))
    found += [fault for each in crowds for fault in crowd_faults(each)]
    show("\n".join(found) or "\nAccounts cannot be told apart by time, and no other request failed.")
    return bool(found)


def auc(some: Sequence[float], others: Sequence[float]) -> float:
    """How often one of `others` is larger than one of `some`, over all pairs; equal ones count half (Mann–Whitney)."""
    ordered = sorted(some)
    below = sum(bisect_left(ordered, each) + bisect_right(ordered, each) for each in others)
    return below / (2 * len(some) * len(others))


def distinguishability(some: Sequence[float], others: Sequence[float]) -> float:
    """The larger of the AUC and 1 − AUC: 0.5 if times say nothing, 1 if they say all."""
    larger = auc(some, others)
    return max(larger, 1 - larger)


def judged_times(times: Mapping[str, Sequence[float]]) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and a sentence for each kind of account that can be told from an unknown one."""
    rows, found = [], []
    for kind, seconds in times.items():
        verdict = figure = ""
        if kind != UNKNOWN:
            measured = distinguishability(seconds, times[UNKNOWN])
            figure, verdict = f"{measured:.3f}", at_most(measured, LIMIT)
            if measured > LIMIT:
                found.append(f"The time of a login tells {kind} emails from unknown ones: AUC {figure}.")
        rows.append([f"{kind}, {len(seconds):,} samples", f"{median(seconds) * 1e3:.2f}", figure, verdict])
    return rows, found


def refusal_times(app: Server) -> dict[str, list[float]]:
    """Seconds of logins that are refused, by kind of account, in random order and one at a time.

    Inactive accounts are tried with their right password, others with a wrong one.
    """
    kinds = [kind for kind in (KNOWN, INACTIVE, UNKNOWN) for _ in range(SAMPLES)]
    Random(2026).shuffle(kinds)
    times: dict[str, list[float]] = {kind: [] for kind in (KNOWN, INACTIVE, UNKNOWN)}
    connection = HTTPConnection(LOOPBACK, app.port, timeout=30)
    for number in range(WARM_UP):
        login(connection, f"warm-up-{number}@example.com", WRONG_PASSWORD)
    for kind in kinds:
        email = f"{kind}-{len(times[kind]) + 1}@example.com"
        began = time.perf_counter()
        status = login(connection, email, EXAMPLE_PASSWORD if kind == INACTIVE else WRONG_PASSWORD)
        times[kind].append(time.perf_counter() - began)
        if status != 401:
            raise SetupError(f"A login that was to be refused with 401 was answered {status}.")
    connection.close()
    return times


def login(connection: HTTPConnection, email: str, password: str) -> int:
    """Returns the status of the answer."""
    body = json.dumps({"email": email, "password": password})
    connection.request("POST", "/api/auth/login", body.encode(), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


@dataclass(frozen=True)
class Crowd:
    """Clients that sign in at once, and the requests of others meanwhile."""

    clients: int
    statuses: Mapping[int, int]
    """How many logins were answered with each."""
    by_id: Load
    ping: Load
    """It waits for nothing but the event loop: what it takes longer than without logins is the loop's lag."""


CROWD_HEAD = ["at once", "signed in", "503", "others failed"]
CROWD_HEAD += [f"{name} {figure}" for name in ("by id", "ping") for figure in ("p50 ms", "p99 ms", "max ms")]


def crowd(bed: Testbed, app: Server, clients: int) -> Crowd:
    """Send both reads on one connection each, while that many clients sign in at the same moment, again and again."""
    files = [write_lines(bed, scenario, Random(2026), SECONDS) for scenario in (BY_ID, PING)]
    emails = cycle(f"{KNOWN}-{number + 1}@example.com" for number in range(SAMPLES))
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(2) as readers, ThreadPoolExecutor(max(1, clients)) as people:

        def read(file: Path) -> Load:
            return load(app.url, file, connections=1, seconds=SECONDS)

        reads = [readers.submit(read, file) for file in files]
        while clients and not all(each.done() for each in reads):
            statuses.update(people.map(partial(sign_in, app), next_emails(emails, clients)))
        by_id, ping = (each.result() for each in reads)
    return Crowd(clients, statuses, by_id, ping)


def next_emails(emails: Iterator[str], count: int) -> list[str]:
    return list(islice(emails, count))


def sign_in(app: Server, email: str) -> int:
    connection = HTTPConnection(LOOPBACK, app.port, timeout=60)
    try:
        return login(connection, email, EXAMPLE_PASSWORD)
    finally:
        connection.close()


def crowd_row(crowd: Crowd) -> list[str]:
    signed_in, refused = crowd.statuses.get(200, 0), crowd.statuses.get(503, 0)
    times = [each for load in (crowd.by_id, crowd.ping) for each in (load.p50_ms, load.p99_ms, load.max_ms)]
    failed = crowd.by_id.errors + crowd.ping.errors
    return [str(crowd.clients or "none"), *map(str, (signed_in, refused, failed)), *(f"{each:.1f}" for each in times)]


def crowd_faults(crowd: Crowd) -> Iterator[str]:
    """A sentence for each thing that must not happen while that many clients sign in at once."""
    for name, each in (("by id", crowd.by_id), ("ping", crowd.ping)):
        if each.errors:
            yield f"{crowd.clients} clients at once: {each.errors} of the other requests failed ({name})."
    if other := {status: count for status, count in crowd.statuses.items() if status not in {200, 503}}:
        yield f"{crowd.clients} clients at once: logins were answered {other}, which is neither 200 nor 503."
    refused = crowd.statuses.get(503, 0)
    if bool(refused) != (crowd.clients > PLACES):
        yield f"{crowd.clients} clients at once: {refused} logins were refused, and there is room for {PLACES}."
