"""The arithmetic between what was measured and what is reported."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest

from benchmarks import caching, compare, ground, measure, scale, servers
from benchmarks.figures import scenario_table, table, verdict, warnings
from benchmarks.ground import Ground
from benchmarks.load import Load
from benchmarks.measure import Results, Slice, middle, ratio
from benchmarks.plot import bars
from benchmarks.processes import quietest
from benchmarks.scenarios import BY_ID, LIST, UPDATE, Scenario
from benchmarks.servers import Server
from benchmarks.soak import is_flat
from plinth.testing.process import Process
from plinth.testing.servers import Servers


def a_slice(cpu_us: float, requests: int = 10_000, *, errors: int = 0, seconds: float = 1, foreign: float = 0) -> Slice:
    load = Load(requests=requests, seconds=seconds, p50_ms=1.5, p99_ms=9, errors=errors, driver_busy=0.5)
    return Slice(load, cpu_us * requests / 1e6, foreign)


def test_a_slice_knows_its_rate_its_cost_and_its_idleness() -> None:
    taken = a_slice(90, seconds=2, foreign=0.25)
    assert taken.rate == 5000
    assert taken.cpu_us == pytest.approx(90)
    assert taken.idle == pytest.approx(1 - 0.45 - 0.25)


def test_figures_are_medians() -> None:
    assert middle([a_slice(cost) for cost in (300, 100, 120)], lambda each: each.cpu_us) == pytest.approx(120)


def test_a_ratio_compares_within_a_round() -> None:
    """A machine that is busy in one round makes both dearer, and the ratio stays."""
    floor = [a_slice(cost) for cost in (100, 500, 110)]
    app = [a_slice(cost) for cost in (130, 650, 143)]
    assert ratio(app, floor) == pytest.approx(1.3)


@pytest.mark.parametrize(("workers", "asked"), [([], 16), ([1], 16), ([1, 2, 3], 48)])
def test_each_worker_is_asked_by_as_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: list[int], asked: int
) -> None:
    monkeypatch.setattr(servers, "family", lambda pid: [pid, *workers])
    asked_by: list[int] = []

    def load(url: str, lines: Path, connections: int, seconds: int) -> Load:
        asked_by.append(connections)
        return a_slice(90).load

    monkeypatch.setattr(measure, "load", load)
    measure.take(Server("app", Process("app", tmp_path, "app", signal.SIGTERM), 1, set()), tmp_path, 1)
    assert asked_by == [asked]


def test_a_server_runs_where_the_disk_does_not_interrupt_it() -> None:
    def softirqs(*counts: int) -> str:
        return f"    CPU0 CPU1 CPU2\n TIMER:   9 9 9\n BLOCK:   {' '.join(map(str, counts))}\n"

    assert quietest([0, 1, 2], softirqs(7, 0, 9)) == 1
    assert quietest([0, 2], softirqs(7, 0, 9)) == 0
    assert quietest([0, 1, 2], softirqs(5, 5, 5)) == 2
    assert quietest([0, 1], "    CPU0 CPU1\n") == 1


def test_rounds_of_several_launches_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is lucky, or meets a quiet machine, is so for all of its rounds."""
    launches, asked = list[str](), list[tuple[Sequence[object], int]]()

    @contextmanager
    def anew() -> Iterator[SimpleNamespace]:
        launches.append(number := str(len(launches)))
        yield SimpleNamespace(floors=lambda: {"B": f"B{number}", "C": f"C{number}"}, app=lambda: f"app{number}")

    def measured(here: object, scenario: Scenario, servers: Sequence[object], rounds: int, seconds: int) -> Results:
        asked.append((servers, rounds))
        return {"floor B": [a_slice(100)], "app": [a_slice(100 * len(asked))]}

    monkeypatch.setattr(compare, "measure", measured)
    here = cast(Ground, SimpleNamespace(anew=anew))
    (_, read), (_, written) = compare.compare(here, [BY_ID, UPDATE], launches=2, rounds=5, seconds=1)
    assert asked == [(["B0", "C0", "app0"], 5), (["B0", "app0"], 10), (["B1", "C1", "app1"], 5), (["B1", "app1"], 10)]
    assert [each.cpu_us for each in read["app"]] == pytest.approx([100, 300])
    assert [each.cpu_us for each in written["app"]] == pytest.approx([200, 400])
    assert len(read["floor B"]) == 2


def test_kept_answers_are_compared_with_the_ping_of_their_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(100, 190), (50, 120), (50, 125)]

    @contextmanager
    def anew() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(floors=lambda: {"A": "floor A"})

    def measured(_here: object, floor: object, _cases: object, rounds: int, _seconds: int) -> Results:
        assert (floor, rounds) == ("floor A", 1)
        ping, hit = asked.pop()
        return {caching.FLOOR: [a_slice(ping)], "hit": [a_slice(hit)]}

    monkeypatch.setattr(caching, "measure", measured)
    told = caching.section(cast(Ground, SimpleNamespace(anew=anew)), launches=3, rounds=1, seconds=1)
    ping, hit = ([cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()[2:])
    assert ping == [caching.FLOOR, "50", "1.00", ""]
    assert hit == ["hit", "125", "2.40", "2.40 ≤ 2.5"]


def test_what_a_launch_started_stops_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ground, "APP", (sys.executable, "-c", "import time; time.sleep(600)"))
    urls = cast(Servers, SimpleNamespace(database_url="", redis_url=""))
    with ExitStack() as stack:
        here = Ground(tmp_path, urls, 10, stack)
        kept = here.launch_app("kept", {})
        with here.anew() as fresh:
            processes = [kept.process, fresh.launch_app("own", {}).process]
            assert [each.exit_code for each in processes] == [None, None]
        assert [each.exit_code for each in processes] == [None, -signal.SIGTERM]


def test_two_workers_are_compared_with_two_services_under_the_same_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A service alone on the cores is cheaper than one that has company, which is no fault of the workers."""

    @contextmanager
    def anew() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(directory=tmp_path, products=10, app=lambda name, *_, **__: name)

    costs = {"one": [100] * 6, "two workers": [180, 300, 300, 180, 180, 180]}
    turns: list[str] = []

    def taken(name: str, *_: object) -> Slice:
        turns.append(name)
        return a_slice(costs[name].pop())

    monkeypatch.setattr(scale, "take", taken)
    monkeypatch.setattr(scale, "take_together", lambda *_: [a_slice(140, 5000), a_slice(170, 10_000)])
    told = scale.workers(cast(Ground, SimpleNamespace(anew=anew)), launches=2, rounds=3, seconds=1)
    assert costs == {"one": [], "two workers": []}
    assert turns == ["two workers", "one", "one", "two workers", "two workers", "one"] * 2  # who is first may gain
    assert "**1.12 > 1.1**" in told
    assert "× **1.80 > 1.1** of one worker alone" in told
    assert "Two services use × 1.60" in told
    assert [line.split("|")[2].strip() for line in told.splitlines()[2:5]] == ["10,000", "15,000", "10,000"]


def test_goodput_is_of_all_answers_that_are_none_but_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Over all of the time, whatever the round in the middle says."""
    taken = {
        ("app", 512): [a_slice(90, count, errors=100, seconds=3) for count in (7000, 4000, 4000)],
        ("app", 64): [a_slice(90, count, seconds=3) for count in (12_000, 3000, 3000)],
        ("floor C", 512): [a_slice(90, 1000)] * 3,
        ("floor C", 64): [a_slice(90, 4000)] * 3,
    }
    monkeypatch.setattr(scale, "CONNECTIONS", (64, 512))
    monkeypatch.setattr(scale, "take", lambda server, _lines, _seconds, count: taken[server.name, count].pop())
    ground = cast(Ground, SimpleNamespace(directory=tmp_path, products=10))
    servers = [Server(name, Process(name, tmp_path, name, signal.SIGTERM), 1, set()) for name in ("floor C", "app")]
    told = scale.connections(ground, servers, rounds=3, seconds=3)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()[2:4]]
    assert rows[0][:3] == ["64", "4,000 (100%)", "2,000 (100%)"]
    assert rows[1] == ["512", "1,000 (25%)", "1,633 (82%)", "1.5", "9.0", "300"]
    assert "Goodput at 512 connections is 82% of the peak" in told


def test_a_table_is_aligned() -> None:
    assert table(["", "a"], [["one", "1"], ["x", "1,000"]]).splitlines() == [
        "|     |     a |",
        "| --- | ----: |",
        "| one |     1 |",
        "| x   | 1,000 |",
    ]


def test_a_scenario_shows_each_server_against_each_floor() -> None:
    results = {"floor B": [a_slice(50)], "floor C": [a_slice(80)], "app": [a_slice(100)]}
    row = [cell.strip() for cell in scenario_table(results).splitlines()[-1].strip("|").split("|")]
    assert row == ["app", "10,000", "1.50", "9.00", "100", "100–100", "", "2.00", "1.25"]


def test_a_reader_is_warned_of_what_makes_figures_worthless() -> None:
    assert warnings(BY_ID, {"app": [a_slice(100)]}) == []
    [failed] = warnings(BY_ID, {"app": [a_slice(100, errors=3)]})
    assert failed == "product by id, app: 3 requests failed, so its figures mean nothing."
    [waited] = warnings(BY_ID, {"app": [a_slice(50)]})
    assert "app: the server waited" in waited
    [busy] = warnings(BY_ID, {"app": [a_slice(50, foreign=0.5)]})
    assert busy.startswith("The machine was busy")


def test_a_verdict_shows_the_value_and_its_target() -> None:
    assert verdict(1.2, 1.3) == "1.20 ≤ 1.3"
    assert verdict(61, 60) == "**61 > 60**"


def test_memory_is_flat_once_it_is_warm() -> None:
    assert is_flat([60, 80, 90, 91, 90, 92, 91, 90])
    assert is_flat([90])
    assert not is_flat([float(100 + 2 * number) for number in range(40)])


def test_the_plot_is_svg_with_a_bar_for_each_figure() -> None:
    drawn = ElementTree.fromstring(
        bars("CPU & all", [(LIST.name, {"floor C": 80, "app": 100}), (BY_ID.name, {"app": 50})])
    )
    space = "{http://www.w3.org/2000/svg}"
    widths = [
        float(each.get("width", 0))
        for each in drawn.iter(f"{space}rect")
        if each.get("x") == "170" and each.get("height") == "14"
    ]
    assert widths[0] / widths[1] == pytest.approx(0.8, abs=0.01)
    assert len(widths) == 3
