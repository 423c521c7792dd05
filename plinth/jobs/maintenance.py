"""What keeps the queue small, and the numbers that say how it is."""

from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Metric
from sqlalchemy import Float, and_, cast, extract, func, literal_column, or_, select, text

from plinth.database import Query, Readable, Session
from plinth.jobs.tables import JOBS
from plinth.telemetry.metrics import QUEUE_JOBS, QUEUE_OLDEST_SECONDS

PRUNE = text("""
    WITH pruned AS (
        DELETE FROM plinth_jobs WHERE id IN (
            SELECT id FROM plinth_jobs
            WHERE (state IN ('succeeded', 'cancelled') AND finished_at < now() - CAST(:finished AS interval))
                OR (state = 'dead' AND finished_at < now() - CAST(:dead AS interval))
            LIMIT :most FOR UPDATE SKIP LOCKED
        ) RETURNING id
    )
    SELECT count(*) FROM pruned
""")


async def prune_jobs(session: Session, finished_after: timedelta, dead_after: timedelta, most: int = 10_000) -> int:
    """Delete at most so many jobs that were finished longer ago, and return how many there were."""
    values = {"finished": finished_after, "dead": dead_after, "most": most}
    return int(await session.scalar(PRUNE, values) or 0)


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """A queue at this moment."""

    queue: str
    ready: int
    """Jobs that wait for a worker."""
    delayed: int
    """Jobs that wait for their time, the next attempts of failed ones included."""
    running: int
    retries: int
    """Those of the above that have failed before."""
    dead: int
    oldest_seconds: float | None
    """How long the oldest of the ready ones has been waiting."""


def _numbers() -> Query[QueueNumbers]:
    # Literals, since the planner uses a partial index only where it can see that its condition holds.
    queued, running, dead = (JOBS.c.state == literal_column(f"'{state}'") for state in ("queued", "running", "dead"))
    due = JOBS.c.run_at <= func.now()
    ready = and_(queued, due)
    count = func.count()
    oldest = func.now() - func.min(JOBS.c.run_at).filter(ready)
    columns = (
        JOBS.c.queue,
        count.filter(ready).label("ready"),
        count.filter(queued, ~due).label("delayed"),
        count.filter(running).label("running"),
        count.filter(or_(and_(queued, JOBS.c.attempts > 0), and_(running, JOBS.c.attempts > 1))).label("retries"),
        count.filter(dead).label("dead"),
        cast(extract("epoch", oldest), Float).label("oldest_seconds"),
    )
    statement = select(*columns).where(or_(queued, running, dead)).group_by(JOBS.c.queue)
    return Query(QueueNumbers, statement.order_by(JOBS.c.queue))


NUMBERS = _numbers()


async def queue_numbers(db: Readable) -> list[QueueNumbers]:
    """The numbers of each queue that has unfinished or dead jobs."""
    return await db.all(NUMBERS)


async def queue_metrics(db: Readable) -> list[Metric]:
    """The same numbers for a scrape."""
    [jobs], [oldest] = QUEUE_JOBS.describe(), QUEUE_OLDEST_SECONDS.describe()
    for numbers in await queue_numbers(db):
        for state in ("ready", "delayed", "running", "dead"):
            jobs.add_sample(jobs.name, {"queue": numbers.queue, "state": state}, getattr(numbers, state))
        oldest.add_sample(oldest.name, {"queue": numbers.queue}, numbers.oldest_seconds or 0.0)
    return [jobs, oldest]
