"""The arithmetic from measurements to reported figures."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest

from benchmarks import bearer, caching, compare, measure, scale, servers, testbed
from benchmarks.figures import at_least, at_most, scenario_table, table, target_rows, warnings
from benchmarks.load import Load
from benchmarks.measure import Results, Slice, Subject, median_of, ratio
from benchmarks.plot import bars
from benchmarks.processes import least_interrupted
from benchmarks.scenarios import BY_ID, CREATE, LIST, SEARCH, UPDATE
from benchmarks.servers import Server
from benchmarks.soak import is_flat
from plinth.testing.process import Process
from plinth.testing.servers import Servers


def a_slice(cpu_us: float, requests: int = 10_000, *, errors: int = 0, seconds: float = 1, foreign: float = 0) -> Slice:
    load = Load(requests=requests, seconds=seconds, p50_ms=1.5, p99_ms=9, max_ms=12, errors=errors, driver_busy=0.5)
    return Slice(load, cpu_us * requests / 1e6, foreign)


def test_a_slice_has_a_rate_a_cost_and_an_idle_share() -> None:
    taken = a_slice(90, seconds=2, foreign=0.25)
    assert taken.rate == 5000
    assert taken.cpu_us == pytest.approx(90)
    assert taken.idle == pytest.approx(1 - 0.45 - 0.25)


def test_figures_are_medians() -> None:
    assert median_of([a_slice(cost) for cost in (300, 100, 120)], lambda each: each.cpu_us) == pytest.approx(120)


def test_a_ratio_compares_within_a_round() -> None:
    """A machine that is busy in one round makes both slower, and the ratio stays."""
    floor = [a_slice(cost) for cost in (100, 500, 110)]
    app = [a_slice(cost) for cost in (130, 650, 143)]
    assert ratio(app, floor) == pytest.approx(1.3)


@pytest.mark.parametrize(("workers", "expected"), [([], 16), ([1], 16), ([1, 2, 3], 48)])
def test_the_number_of_connections_is_per_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: list[int], expected: int
) -> None:
    monkeypatch.setattr(servers, "process_tree", lambda pid: [pid, *workers])
    opened: list[tuple[int, str]] = []

    def load(url: str, lines: Path, connections: int, seconds: int, authorization: str) -> Load:
        opened.append((connections, authorization))
        return a_slice(90).load

    monkeypatch.setattr(measure, "load", load)
    server = Server("app", Process("app", tmp_path, "app", signal.SIGTERM), 1, set(), "Bearer token")
    measure.measure_slice(server, tmp_path, 1)
    assert opened == [(expected, "Bearer token")]


def test_a_server_runs_on_the_core_with_the_fewest_disk_interrupts() -> None:
    def softirqs(*counts: int) -> str:
        return f"    CPU0 CPU1 CPU2\n TIMER:   9 9 9\n BLOCK:   {' '.join(map(str, counts))}\n"

    assert least_interrupted([0, 1, 2], softirqs(7, 0, 9)) == 1
    assert least_interrupted([0, 2], softirqs(7, 0, 9)) == 0
    assert least_interrupted([0, 1, 2], softirqs(5, 5, 5)) == 2
    assert least_interrupted([0, 1], "    CPU0 CPU1\n") == 1


class FakeTestbed(SimpleNamespace):
    """Counts the launches and starts no process: its servers are namespaces with a name."""

    launches = 0
    authorization = "Bearer token"

    @contextmanager
    def scope(self) -> Iterator["FakeTestbed"]:
        self.launches += 1
        yield self

    def server(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, launch=self.launches, wait_until_ready=lambda: None)

    def floors(self) -> dict[str, SimpleNamespace]:
        return {letter: self.server(f"floor {letter}") for letter in "ABC"}

    def app(self, name: str = "app", **_: object) -> SimpleNamespace:
        return self.server(name)

    def launch_app(self, name: str, _env: object) -> SimpleNamespace:
        return self.server(name)

    def secured_app(self) -> SimpleNamespace:
        return self.server("secured app")

    def usual_template(self) -> SimpleNamespace:
        return self.server(testbed.USUAL)


def fake_bed(**attributes: object) -> testbed.Testbed:
    return cast(testbed.Testbed, FakeTestbed(**attributes))


def test_rounds_of_several_launches_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process can be fast, or meet an idle machine, in all of its rounds."""
    measured = list[tuple[int, list[str], int]]()

    def fake(_bed: object, subjects: Sequence[Subject], rounds: int, _seconds: int) -> Results:
        [launch] = {cast(SimpleNamespace, subject.server).launch for subject in subjects}
        measured.append((launch, [subject.name for subject in subjects], rounds))
        return {subject.name: [a_slice(100 * len(measured))] for subject in subjects}

    monkeypatch.setattr(compare, "measure", fake)
    (_, read), (_, searched), (_, written) = compare.compare(
        fake_bed(), [BY_ID, SEARCH, UPDATE], launches=2, rounds=5, seconds=1
    )
    assert measured == [
        (launch, names, rounds)
        for launch in (1, 2)
        for names, rounds in (
            (["floor B", "floor C", "app", "usual template"], 5),
            (["floor B", "floor C", "app"], 5),
            (["floor B", "app", "usual template"], 6),
        )
    ]
    assert [each.cpu_us for each in read["app"]] == pytest.approx([100, 400])
    assert [each.cpu_us for each in searched["floor C"]] == pytest.approx([200, 500])
    assert [each.cpu_us for each in written["usual template"]] == pytest.approx([300, 600])


def test_servers_are_measured_in_turn_in_alternating_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turns: list[str] = []
    executed: list[tuple[str, ...]] = []

    def fake(server: str, lines: Path, _seconds: int) -> Slice:
        turns.append(f"{server} {lines.read_text().splitlines()[0]}")
        return a_slice(100)

    monkeypatch.setattr(measure, "measure_slice", fake)
    bed = fake_bed(directory=tmp_path, products=10, execute=lambda *statements: executed.append(statements))
    servers = [cast(Server, name) for name in ("one", "two")]
    measure.measure(bed, [Subject(str(each), each, BY_ID) for each in servers], rounds=2, seconds=1)
    assert [turn.split()[0] for turn in turns] == ["two", "one", "one", "two"]
    assert len({turn.split()[-1] for turn in turns}) == 1  # all servers get the same requests
    assert executed == []
    turns.clear()
    measure.measure(bed, [Subject(str(each), each, CREATE) for each in servers], rounds=2, seconds=1)
    assert len({turn.split(" ", 1)[1] for turn in turns}) == 4  # and no product is created twice
    assert executed == [measure.REMOVE_CREATED] * 4


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_cached_responses_are_compared_with_the_ping_of_their_own_round(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [(100, 190, 500), (50, 120, 290), (50, 125, 350)]

    def fake(_bed: object, subjects: Sequence[Subject], rounds: int, _seconds: int) -> Results:
        assert [subjects[0].name, subjects[0].server.name, rounds] == [caching.BASELINE, "floor A", 1]
        assert [subjects[1].name, next(subjects[1].scenario.lines(Random(), 1, 1))] == ["hit", "GET /api/products/1"]
        usual = subjects[-1]
        assert [usual.server.name, next(usual.scenario.lines(Random(), 1, 1))] == [
            testbed.USUAL,
            "GET /api/products/1/cached",
        ]
        ping, hit, other = costs.pop()
        return {caching.BASELINE: [a_slice(ping)], "hit": [a_slice(hit)], usual.name: [a_slice(other)]}

    monkeypatch.setattr(caching, "measure", fake)
    ping, hit, usual = rows_of(caching.section(fake_bed(), launches=3, rounds=1, seconds=1))
    assert ping == [caching.BASELINE, "50", "1.00", "0.42", ""]
    assert hit == ["hit", "125", "2.40", "1.00", "2.40 ≤ 3"]
    assert usual == [caching.USUAL_HIT.name, "350", "5.80", "2.63", "2.63 ≥ 2.5"]


def test_the_secured_endpoints_are_compared_with_the_open_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(_bed: object, subjects: Sequence[Subject], _rounds: int, _seconds: int) -> Results:
        assert {subject.server.name for subject in subjects} == {"secured app"}
        without, behind, signed_in = (next(subject.scenario.lines(Random(1), 1, 1)) for subject in subjects)
        assert behind == f"{without.replace('open', 'secured')} Authorization: Bearer {bearer.TOKEN}"
        assert signed_in == f"{without.replace('open', 'signed-in')} Authorization: {fake_bed().authorization}"
        slices = [a_slice(100)], [a_slice(130, errors=failed)], [a_slice(124)]
        return {subject.name: each for subject, each in zip(subjects, slices, strict=True)}

    monkeypatch.setattr(bearer, "measure", fake)
    failed = 0
    without, behind, signed_in = rows_of(bearer.section(fake_bed(), launches=2, rounds=1, seconds=1))
    assert without == ["without", "100", "1.00", ""]
    assert behind == ["behind HTTPBearer", "130", "1.30", "**1.30 > 1.25**"]
    assert signed_in == ["signed in", "124", "1.24", "1.24 ≤ 1.25"]
    failed = 2
    assert rows_of(bearer.section(fake_bed(), launches=2, rounds=1, seconds=1))[1][-1] == "4 requests failed"


def test_the_servers_of_a_launch_stop_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(testbed, "APP", (sys.executable, "-c", "import time; time.sleep(600)"))
    urls = cast(Servers, SimpleNamespace(database_url="", redis_url=""))
    with testbed.Testbed(tmp_path, urls, 10, authorization="").scope() as bed:
        kept = bed.launch_app("kept", {})
        with bed.scope() as scope:
            processes = [kept.process, scope.launch_app("own", {}).process]
            assert [each.exit_code for each in processes] == [None, None]
        assert [each.exit_code for each in processes] == [None, -signal.SIGTERM]
    assert kept.process.exit_code == -signal.SIGTERM


def test_two_workers_are_compared_with_two_services_under_the_same_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One service alone on the cores costs less than two, which is not the cost of a second worker."""
    costs = {"one": [100] * 6, "two workers": [180, 300, 300, 180, 180, 180]}
    turns: list[str] = []

    def taken(name: str, *_: object) -> Slice:
        turns.append(name)
        return a_slice(costs[name].pop())

    monkeypatch.setattr(scale, "measure_slice", taken)
    monkeypatch.setattr(scale, "measure_slices_at_once", lambda *_: [a_slice(140, 5000), a_slice(170, 10_000)])
    bed = fake_bed(directory=tmp_path, products=10, app=lambda name, *_, **__: name)
    text = scale.workers(bed, launches=2, rounds=3, seconds=1)
    assert costs == {"one": [], "two workers": []}
    assert (
        turns == ["two workers", "one", "one", "two workers", "two workers", "one"] * 2
    )  # the first may have an advantage
    assert "**1.12 > 1.1**" in text
    assert "× **1.80 > 1.1** of one worker alone" in text
    assert "Two services use × 1.60" in text
    assert [line.split("|")[2].strip() for line in text.splitlines()[2:5]] == ["10,000", "15,000", "10,000"]


def test_goodput_counts_responses_without_errors_over_the_whole_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not the median of the rounds."""
    taken = {
        ("app", 512): [a_slice(90, count, errors=100, seconds=3) for count in (7000, 4000, 4000)],
        ("app", 64): [a_slice(90, count, seconds=3) for count in (12_000, 3000, 3000)],
        ("floor C", 512): [a_slice(90, 1000)] * 3,
        ("floor C", 64): [a_slice(90, 4000)] * 3,
    }
    monkeypatch.setattr(scale, "CONNECTIONS", (64, 512))
    monkeypatch.setattr(scale, "measure_slice", lambda server, _lines, _seconds, count: taken[server.name, count].pop())
    bed = fake_bed(directory=tmp_path, products=10)
    floor, app = (Server(name, Process(name, tmp_path, name, signal.SIGTERM), 1, set()) for name in ("floor C", "app"))
    text = scale.connections(bed, floor, app, rounds=3, seconds=3)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:4]]
    assert rows[0][:3] == ["64", "4,000 (100%)", "2,000 (100%)"]
    assert rows[1] == ["512", "1,000 (25%)", "1,633 (82%)", "1.5", "9.0", "300"]
    assert "Goodput at 512 connections is 82% of the peak" in text


def test_a_table_is_aligned() -> None:
    assert table(["", "a"], [["one", "1"], ["x", "1,000"]]).splitlines() == [
        "|     |     a |",
        "| --- | ----: |",
        "| one |     1 |",
        "| x   | 1,000 |",
    ]


def test_a_scenario_shows_each_server_relative_to_each_floor_and_to_the_app() -> None:
    results = {"floor B": [a_slice(50)], "floor C": [a_slice(80)], "app": [a_slice(100)], testbed.USUAL: [a_slice(400)]}
    app, usual = rows_of(scenario_table(results))[2:]
    assert app == ["app", "10,000", "1.50", "9.00", "100", "100–100", "", "2.00", "1.25", "1.00"]
    assert usual[-4:] == ["", "8.00", "5.00", "4.00"]


def test_targets_are_relative_to_a_floor_and_to_the_usual_template() -> None:
    results = {"floor C": [a_slice(80)], "app": [a_slice(120)], testbed.USUAL: [a_slice(600)]}
    assert target_rows(BY_ID, results) == [
        ["product by id, app ÷ floor C", "**1.50 > 1.25** (stretch 1.1)"],
        ["product by id, usual template ÷ app", "5.00 ≥ 4"],
    ]
    assert target_rows(SEARCH, results) == [["search, app ÷ floor C", "**1.50 > 1.2**"]]


def test_failures_and_a_busy_machine_are_reported() -> None:
    assert warnings(BY_ID, {"app": [a_slice(100)]}) == []
    [failed] = warnings(BY_ID, {"app": [a_slice(100, errors=3)]})
    assert failed == "product by id, app: 3 requests failed, so its figures mean nothing."
    [waited] = warnings(BY_ID, {"app": [a_slice(50)]})
    assert "app: the server waited" in waited
    [busy] = warnings(BY_ID, {"app": [a_slice(50, foreign=0.5)]})
    assert busy.startswith("The machine was busy")


def test_a_verdict_shows_the_value_and_its_target() -> None:
    assert at_most(1.2, 1.3) == "1.20 ≤ 1.3"
    assert at_most(61, 60) == "**61 > 60**"
    assert at_least(4.2, 4) == "4.20 ≥ 4"
    assert at_least(3.9, 4) == "**3.90 < 4**"


def test_memory_is_flat_unless_it_grows_after_the_warm_up() -> None:
    assert is_flat([60, 80, 90, 91, 90, 92, 91, 90])
    assert is_flat([90])
    assert not is_flat([float(100 + 2 * number) for number in range(40)])


def test_the_plot_is_svg_with_a_bar_for_each_figure() -> None:
    drawn = ElementTree.fromstring(
        bars("CPU & all", [(LIST.name, {"floor C": 80, "app": 100}), (BY_ID.name, {"app": 50, testbed.USUAL: 200})])
    )
    space = "{http://www.w3.org/2000/svg}"
    widths = [
        float(each.get("width", 0))
        for each in drawn.iter(f"{space}rect")
        if each.get("x") == "170" and each.get("height") == "14"
    ]
    assert widths[0] / widths[1] == pytest.approx(0.8, abs=0.01)
    assert len(widths) == 4
