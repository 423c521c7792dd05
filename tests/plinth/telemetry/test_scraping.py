"""Metrics of processes that share a folder: what is folded counts as much as before."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Gauge
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from plinth.serving.metrics_folder import make_folder, remove_folder
from plinth.telemetry.metrics import METRICS, QUEUE_JOBS, QUEUE_OLDEST_SECONDS
from plinth.telemetry.scraping import Scrape, fold_dead
from plinth.testing.environment import child_environment

DEAD = [2**22 + number for number in range(1, 5)]  # above the largest id that Linux gives to a process
SET_GAUGES = """
import asyncio
from plinth.database.pools import report_pool
from plinth.telemetry import sampled

async def main():
    async with sampled("web", "1", 1):
        report_pool("reads", 1, 1, 1)

asyncio.run(main())
"""
OF_THE_QUEUE = {QUEUE_JOBS, QUEUE_OLDEST_SECONDS}  # which no process keeps
BUCKETS = ["0.1", "1.0", "+Inf"]

amounts = st.integers(0, 10**6).map(float)
labels = st.dictionaries(st.sampled_from(["route", "method"]), st.text(max_size=5), max_size=2)
counters = st.lists(st.tuples(st.sampled_from(["a", "b"]), labels, amounts), max_size=6)
histograms = st.lists(st.tuples(labels, st.tuples(amounts, amounts, amounts), amounts), max_size=4)
processes = st.lists(st.tuples(counters, histograms), min_size=1, max_size=len(DEAD))


def write(folder: Path, process: int, counters: Any, histograms: Any) -> None:
    """Write the files that prometheus_client would write in this process."""

    def key(name: str, sample: str, labels: dict[str, str]) -> str:
        return mmap_key(name, sample, [*labels], [*labels.values()], "Help.")

    values = MmapedDict(str(folder / f"counter_{process}.db"))
    for name, labels, amount in counters:
        values.write_value(key(name, f"{name}_total", labels), amount, 0.0)
    values.close()
    values = MmapedDict(str(folder / f"histogram_{process}.db"))
    for labels, amounts, total in histograms:
        values.write_value(key("h", "h_sum", labels), total, 0.0)
        for bound, amount in zip(BUCKETS, amounts, strict=True):
            values.write_value(key("h", "h_bucket", {**labels, "le": bound}), amount, 0.0)
    values.close()
    values = MmapedDict(str(folder / f"gauge_livesum_{process}.db"))
    values.write_value(key("g", "g", {}), 1.0, 0.0)
    values.close()


def samples(folder: Path, kinds: str = "counter histogram") -> dict[Any, float]:
    families = Scrape(folder).collect()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        if family.type in kinds
        for sample in family.samples
    }


@settings(max_examples=25)  # each writes many files
@given(processes=processes, rounds=st.integers(1, 3))
def test_folded_files_count_as_much_as_before(
    tmp_path_factory: pytest.TempPathFactory, processes: list[Any], rounds: int
) -> None:
    folder = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        write(folder, os.getpid(), *processes[0])
        for number in range(rounds):
            for process, (counters, histograms) in zip(DEAD, processes, strict=False):
                write(folder, process + 10 * number, counters, histograms)
            before = samples(folder)
            fold_dead()
            assert samples(folder) == before
            assert samples(folder, "gauge") == {("g",): 1.0}, "of this process alone"
            names = {path.name for path in folder.glob("*.db")}
            own = {f"{kind}_{os.getpid()}.db" for kind in ("counter", "histogram", "gauge_livesum")}
            assert names == own | {"counter_archive.db", "histogram_archive.db"}


def test_no_gauge_of_a_process_that_has_ended_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gauges() -> set[str]:
        return {family.name for family in Scrape(tmp_path).collect() if family.type == "gauge"}

    environment = child_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    subprocess.run([sys.executable, "-c", SET_GAUGES], env=environment, check=True)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    kept = [metric for metric in METRICS if isinstance(metric, Gauge) and metric not in OF_THE_QUEUE]
    assert gauges() == {family.name for metric in kept for family in metric.describe()}
    fold_dead()
    assert gauges() == set()


def test_the_dead_are_not_folded_while_a_scrape_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    write(tmp_path, DEAD[0], [("a", {}, 3.0)], [])
    merge: Any = MultiProcessCollector.merge

    def fold_and_merge(files: list[str], accumulate: bool = True) -> Any:
        if accumulate:
            fold_dead()
            assert not (tmp_path / "counter_archive.db").exists()
        return merge(files, accumulate)

    monkeypatch.setattr(MultiProcessCollector, "merge", staticmethod(fold_and_merge))
    assert samples(tmp_path) == {("a_total",): 3.0}
    monkeypatch.undo()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    fold_dead()
    assert (tmp_path / "counter_archive.db").exists()
    assert samples(tmp_path) == {("a_total",): 3.0}


def test_a_file_that_cannot_be_folded_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    (tmp_path / f"counter_{DEAD[0]}.db").write_bytes(
        struct.pack("iiii", 64, 0, 1000, 0) + bytes(100)
    )  # a key of 1000 bytes
    fold_dead()
    assert "could not be folded" in caplog.text


def test_the_folder_of_a_killed_service_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.serving.metrics_folder.SHARED_MEMORY", tmp_path)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    make_folder()
    [used] = tmp_path.iterdir()
    abandoned = copytree(used, tmp_path / "plinth-metrics-abandoned")
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR")
    make_folder()
    assert used.exists()
    assert not abandoned.exists()
    remove_folder()
    assert [*tmp_path.iterdir()] == []


def test_a_folder_of_a_process_above_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    make_folder()
    remove_folder()
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path)
    assert tmp_path.exists()
