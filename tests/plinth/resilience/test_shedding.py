"""The limiter, with a clock of its own: slots, priorities, the time in the queue, and how the limit adapts."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plinth.resilience import shedding
from plinth.resilience.shedding import BURST_SECONDS, LAG_SECONDS, MOST, TICK_SECONDS, Limiter, Priority
from plinth.telemetry.metrics import SHED

QUEUE_SECONDS = BURST_SECONDS / 2
LATE = 10 * LAG_SECONDS
FEWEST = 1


@pytest.fixture(autouse=True)
def untimed() -> Iterator[None]:
    """The tests call `adapt` themselves, and with few requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shedding, "TICK_SECONDS", 3600.0)
        patch.setattr(shedding, "FEWEST", FEWEST)
        yield


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Requests:
    """Requests of a limiter, and what became of each."""

    def __init__(self, limit: float) -> None:
        self.clock = Clock()
        self.limiter = Limiter(QUEUE_SECONDS, self.clock)
        self.limiter.limit = limit
        self.tasks: list[asyncio.Task[None]] = []
        self.states: list[str] = []
        self.since: list[float] = []
        self.finish: list[asyncio.Event] = []

    def arrive(self, priority: Priority = Priority.READ) -> int:
        number = len(self.tasks)
        self.states.append("new")
        self.since.append(0.0)
        self.finish.append(asyncio.Event())
        self.tasks.append(asyncio.create_task(self._serve(number, priority)))
        return number

    async def _serve(self, number: int, priority: Priority) -> None:
        self.states[number], self.since[number] = "waiting", self.clock.now
        try:
            if not (self.limiter.try_enter() or await self.limiter.wait(priority)):
                self.states[number] = "refused"
                return
        except asyncio.CancelledError:
            self.states[number] = "cancelled"
            raise
        self.states[number] = "admitted"
        try:
            await self.finish[number].wait()
        finally:
            self.limiter.leave()
            self.states[number] = "done"

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def all(self, state: str) -> list[int]:
        return [number for number, each in enumerate(self.states) if each == state]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


STEPS = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from(Priority)),
    st.tuples(st.sampled_from(["finish", "cancel"]), st.integers(0, 50)),
    st.tuples(st.just("advance"), st.floats(0, BURST_SECONDS)),
    st.tuples(st.just("adapt"), st.sampled_from([0.0, LATE])),
    st.tuples(st.just("settle"), st.none()),
)


@given(steps=st.lists(STEPS, max_size=60), limit=st.integers(1, 4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_sequence_exceeds_the_limit_or_the_wait_or_leaks_a_slot(steps: list[tuple[str, object]], limit: int) -> None:
    async def run() -> None:
        requests = Requests(limit)
        limiter = requests.limiter
        for step, value in [*steps, ("settle", None)]:
            before, highest = limiter.in_flight, limiter.limit
            if step == "arrive":
                assert isinstance(value, Priority)
                requests.arrive(value)
            elif step == "finish" and isinstance(value, int) and requests.tasks:
                requests.finish[value % len(requests.tasks)].set()
            elif step == "cancel" and isinstance(value, int) and requests.tasks:
                requests.tasks[value % len(requests.tasks)].cancel()
            elif step == "advance" and isinstance(value, float):
                requests.clock.now += value
            elif step == "adapt" and isinstance(value, float):
                limiter.adapt(value, 1.0)
                now = requests.clock.now
                await requests.settle()
                assert all(now - requests.since[each] <= BURST_SECONDS for each in requests.all("waiting"))
            elif step == "settle":
                await requests.settle()
                assert limiter.in_flight == len(requests.all("admitted"))
                assert limiter.waiting == len(requests.all("waiting"))
                assert not limiter.waiting or limiter.in_flight >= limiter.limit
            assert limiter.in_flight <= max(before, highest, limiter.limit) + 1
            assert limiter.in_flight <= before or limiter.in_flight < max(highest, limiter.limit) + 1
        await requests.end()
        assert limiter.in_flight == limiter.waiting == 0

    asyncio.run(run())


async def test_a_free_slot_goes_to_a_write_then_a_read_then_an_export_each_in_turn() -> None:
    requests = Requests(1)
    first = requests.arrive()
    await requests.settle()
    waiting = [requests.arrive(each) for each in (Priority.EXPORT, Priority.READ, Priority.WRITE) for _ in range(2)]
    admitted = []
    for _ in range(6):
        await requests.settle()
        requests.finish[first].set()
        await requests.settle()
        [first] = requests.all("admitted")
        admitted.append(waiting.index(first))
    assert admitted == [4, 5, 2, 3, 0, 1]
    await requests.end()


async def test_a_burst_may_wait_but_a_standing_queue_is_short() -> None:
    requests = Requests(1)
    requests.arrive()
    for _ in range(20):
        requests.arrive()
    await requests.settle()
    requests.clock.now = 0.9 * BURST_SECONDS
    requests.limiter.adapt(LATE, 1.0)
    await requests.settle()
    assert len(requests.all("waiting")) == 20
    requests.clock.now = 1.1 * BURST_SECONDS
    late = [requests.arrive() for _ in range(2)]
    await requests.settle()
    requests.limiter.adapt(LATE, 1.0)
    await requests.settle()
    assert requests.all("waiting") == late
    late += [requests.arrive() for _ in range(2)]
    await requests.settle()
    # No slot became free, so one may wait at most. Those that came before stay until their time has passed.
    assert [requests.states[each] for each in late] == ["waiting", "waiting", "refused", "refused"]
    requests.clock.now += 1.1 * QUEUE_SECONDS
    requests.limiter.adapt(LATE, 1.0)
    await requests.settle()
    assert not requests.all("waiting")
    await requests.end()


async def test_a_full_queue_takes_a_read_in_the_place_of_the_newest_export() -> None:
    requests = Requests(1)
    requests.arrive()
    await requests.settle()
    requests.clock.now = 0.9 * BURST_SECONDS
    exports = [requests.arrive(Priority.EXPORT) for _ in range(2)]
    await requests.settle()
    requests.clock.now = 1.1 * BURST_SECONDS
    requests.limiter.adapt(LATE, 1.0)  # no slot became free, so one may wait at most
    others = [requests.arrive(Priority.READ), requests.arrive(Priority.EXPORT)]
    await requests.settle()
    assert [requests.states[each] for each in exports + others] == ["waiting", "refused", "waiting", "refused"]
    await requests.end()


async def test_what_was_admitted_and_is_cancelled_before_its_next_step_frees_its_slot() -> None:
    requests = Requests(1)
    first = requests.arrive()
    await requests.settle()
    second = requests.arrive()
    await requests.settle()
    requests.limiter.leave()
    requests.tasks[second].cancel()
    await requests.settle()
    assert requests.states[second] == "cancelled"
    assert requests.limiter.in_flight == 0
    requests.limiter.in_flight += 1  # the first one's, which was freed above
    assert requests.states[first] == "admitted"
    await requests.end()


async def test_the_limit_falls_while_the_loop_is_late_and_rises_only_where_it_refuses() -> None:
    requests = Requests(4)
    limiter = requests.limiter
    limiter.limit = 400.0
    limiter.in_flight = 200
    limiter.adapt(LATE, 1.0)
    assert 50 <= limiter.limit <= 100  # of what was in flight, however high the limit was
    for _ in range(20):
        limiter.adapt(LATE, 1.0)
    assert limiter.limit == FEWEST
    limiter.in_flight = FEWEST
    for _ in range(100):
        limiter.adapt(0.0, 1.0)
    assert limiter.limit == FEWEST
    requests.arrive()
    await requests.settle()
    for _ in range(200):
        limiter.in_flight = 2 * MOST
        limiter.adapt(0.0, 1.0)
    assert limiter.limit == MOST
    await requests.end()


async def test_after_one_delay_what_waits_elsewhere_does_not_hold_all_the_slots() -> None:
    """A loop that is not late has time for as many as are in flight, and for more."""
    requests = Requests(200)
    limiter = requests.limiter
    for _ in range(100):
        requests.arrive()
    await requests.settle()
    limiter.adapt(LATE, 1.0)
    assert limiter.limit == 50
    late = requests.arrive()
    await requests.settle()
    assert requests.states[late] == "waiting"
    for _ in range(4):
        limiter.adapt(0.0, 1.0)
    await requests.settle()
    assert requests.states[late] == "admitted"
    await requests.end()


@pytest.mark.parametrize("limit", [16, 40, 200])
async def test_what_waits_for_a_silent_database_is_not_refused_until_that_is_found(limit: int) -> None:
    """However low a delay before has left the limit: 300 a second arrive, and none ends for a second."""
    requests = Requests(limit)
    limiter = requests.limiter
    for _ in range(20):
        for _ in range(15):
            requests.arrive()
        await requests.settle()
        requests.clock.now += TICK_SECONDS
        limiter.adapt(0.0, TICK_SECONDS)
        await requests.settle()
    assert requests.all("refused") == []
    await requests.end()


async def test_refusals_are_counted_and_logged_from_time_to_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shedding, "TICK_SECONDS", 1e-6)
    monkeypatch.setattr(shedding, "LOG_SECONDS", 3 * BURST_SECONDS)
    before = _counted()
    requests = Requests(1)
    requests.limiter.in_flight = 2 * MOST
    logged = []
    for _ in range(3):
        for _ in range(30):
            requests.arrive(Priority.WRITE)
        await requests.settle()
        requests.clock.now += 2 * BURST_SECONDS
        await asyncio.gather(*requests.tasks)
        await requests.settle()
        logged.append([record.getMessage().partition(":")[0] for record in caplog.records])
    assert logged[0] == logged[1] == ["Refused 30 requests"]
    assert logged[2] == ["Refused 30 requests", "Refused 60 requests"]
    assert _counted() == before + 90
    requests.limiter.in_flight = 0


def _counted() -> float:
    return float(SHED.labels("write")._value.get())
