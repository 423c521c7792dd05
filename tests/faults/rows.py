"""The matrix: each row is a fault, and what is promised while it lasts. To add one, write a function in
server_faults.py, client_faults.py or process_faults.py that causes it, and a row here.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from tests.faults import client_faults as clients
from tests.faults import process_faults as processes
from tests.faults import server_faults as servers
from tests.faults.observation import Observation
from tests.faults.service import Service

READS, WRITES = frozenset({"read"}), frozenset({"write", "job"})


@dataclass(frozen=True)
class Row:
    group: str
    name: str
    promise: str
    fault: Callable[[Service, float], None]
    refused: frozenset[str] = frozenset()
    """The kinds of requests that may be answered with 503. All others succeed."""
    longest_seconds: float = 1.5
    """The longest time that an answer may take, of whatever kind it is."""
    seconds: float = 3.0
    """How long the fault lasts, or longer, so that a thousand requests are due meanwhile."""
    shed: float = 0.01
    """The part of the requests that may be refused as in overload: the load and the servers share the cores."""
    lost: int = 0
    """How many connections may end without an answer."""
    replaced: int = 0
    """How many of the workers are others afterwards."""
    faults_of: Callable[[Observation], Iterable[str]] = lambda observation: ()
    """What else is wrong."""

    def __str__(self) -> str:
        return f"{self.group} {self.name}"


AWAY = "Reads and writes: 503 with Retry-After within 1.5 s. Cached: answered."
RETRIED = "Reads: answered, by a second attempt. Writes: 503, never a second attempt. Cached: answered."
NOTHING = "Everything is answered. Limits are counted by each worker."
EVERYTHING = "Everything is answered."
POSTGRES, REDIS, CLIENTS, PROCESSES = "PostgreSQL", "Redis", "Clients", "Processes"


def slower(found: Observation) -> Iterator[str]:
    """What needs no connection is as fast as before, by its median."""
    for kind in ("cached", "health"):
        before, during = (
            median([answer.seconds for answer in answers if answer.kind == kind])
            for answers in (found.before, found.during)
        )
        if during > max(1.5 * before, before + 0.005):
            yield f"the median of {kind} rose from {1000 * before:.1f} to {1000 * during:.1f} ms"


ROWS = [
    Row(POSTGRES, "restarted 20 times", AWAY, servers.postgres_restarted, READS | WRITES, seconds=30),
    Row(POSTGRES, "killed", AWAY, servers.postgres_killed, READS | WRITES),
    Row(POSTGRES, "its connections terminated", RETRIED, servers.postgres_terminates, WRITES),
    Row(POSTGRES, "its answers cut in the middle", RETRIED, servers.postgres_cut, WRITES),
    Row(POSTGRES, "a read-only standby", AWAY, servers.postgres_is_a_standby, READS | WRITES),
    Row(POSTGRES, "unreachable", AWAY, servers.postgres_refuses, READS | WRITES),
    Row(POSTGRES, "silent", AWAY, servers.postgres_is_silent, READS | WRITES),
    Row(POSTGRES, "slow by 2 s", AWAY, servers.postgres_is_slow, READS | WRITES),
    Row(POSTGRES, "at 20 kB/s", EVERYTHING, servers.postgres_is_narrow),
    Row(POSTGRES, "out of connections", AWAY, servers.postgres_has_no_connection_left, READS | WRITES),
    Row(POSTGRES, "pools exhausted", AWAY, clients.pools_exhausted, READS | WRITES, faults_of=slower),
    Row(
        POSTGRES,
        "queries that are slow",
        "504 at their deadline, when PostgreSQL stops working for them. All else: answered.",
        clients.slow_queries,
    ),
    Row(REDIS, "down for 60 s", NOTHING, servers.redis_down, seconds=60),
    Row(REDIS, "slow by 2 s", NOTHING, servers.redis_is_slow),
    Row(REDIS, "half-open", NOTHING, servers.redis_is_half_open),
    Row(REDIS, "flushed", NOTHING, servers.redis_flushed),
    Row(REDIS, "out of memory", NOTHING, servers.redis_out_of_memory),
    Row(REDIS, "restarted in a pipeline", NOTHING, servers.redis_restarted_in_a_pipeline),
    Row(
        CLIENTS,
        "10,000 abort their requests",
        "No connection is left in use, and nobody receives the answer of another. Up to half are refused as in "
        "overload. Cached: answered.",
        clients.requests_aborted,
        shed=0.5,
    ),
    Row(
        CLIENTS,
        "500 send or read slowly",
        "They hold no connection to the database, and are cut off. All others: answered.",
        clients.clients_slow,
    ),
    Row(
        CLIENTS,
        "leave before their answer",
        "PostgreSQL stops working for their reads. Their writes are carried out. All others: answered.",
        clients.clients_leave,
    ),
    Row(
        PROCESSES,
        "a worker killed",
        "The connections that it had end, and their writes are unknown. All others: answered. It is replaced.",
        processes.worker_killed,
        lost=40,
        replaced=1,
    ),
    Row(PROCESSES, "a worker stopped", f"{EVERYTHING} It is replaced.", processes.worker_stopped, replaced=1),
    Row(PROCESSES, "reloaded", f"{EVERYTHING} Both are replaced.", processes.reloaded, replaced=2),
]
