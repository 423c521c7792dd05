"""What a scrape gets: the metrics of this process, or those of all processes that share a folder.

Each process writes files of its own, which a scrape adds up. The gauges of a process that has ended are deleted. What
it counted remains: its files are folded into one, so that replaced workers do not pile up.
See https://prometheus.github.io/client_python/multiprocess/.
"""

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import REGISTRY, Metric, start_http_server
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

FOLDED_KINDS = ("counter", "histogram", "summary")


class Scrape(Collector):
    def __init__(self, folder: Path | None, extra: Iterable[Metric] = ()) -> None:
        """`extra` is what no process keeps, since it is of the whole service."""
        self._folder = folder
        self._extra = extra

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect() if self._folder is None else _add_up(self._folder)
        yield from self._extra


def metrics_folder() -> Path | None:
    """The folder of the processes (see plinth/serving/metrics_folder.py); None where there is one process only."""
    return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) if "PROMETHEUS_MULTIPROC_DIR" in os.environ else None


def serve_metrics(host: str, port: int | None) -> None:
    """Serve them on a port of their own, by a thread of this process, if there is a port."""
    if port is not None:
        start_http_server(port, host, registry=Scrape(metrics_folder()))


def fold_dead() -> None:
    """Fold the files of processes that have ended. Call it after one has, in a process that waited for its end.

    If a scrape reads them at this moment, they stay until the next call: they are counted either way.
    """
    folder = metrics_folder()
    if folder is None:
        return
    try:
        for process in {_process_of(path) for path in folder.glob("*_*.db")}:
            if process is not None and not _is_alive(process):
                mark_process_dead(process, str(folder))
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for kind in FOLDED_KINDS:
                _fold(folder, kind)
    except BlockingIOError:
        pass
    except Exception:  # metrics do not end the process that supervises all others
        log.exception("The metrics of processes that have ended could not be folded")


def _fold(folder: Path, kind: str) -> None:
    archive, new = folder / f"{kind}_archive.db", folder / f"{kind}_archive.new"
    dead = [path for path in folder.glob(f"{kind}_*.db") if (process := _process_of(path)) and not _is_alive(process)]
    if not dead:
        return
    files = [str(path) for path in (*dead, archive) if _size_of(path)]
    # Not accumulated: the files have the observations of each bucket alone, and a scrape adds up those below it.
    merged = [*MultiProcessCollector.merge(files, accumulate=False)]
    new.unlink(missing_ok=True)
    values = MmapedDict(str(new))
    for metric in merged:
        for name, labels, value, *_ in metric.samples:
            key = mmap_key(metric.name, name, [*labels], [*labels.values()], metric.documentation)
            values.write_value(key, value, 0.0)
    values.close()
    new.replace(archive)
    for path in dead:
        path.unlink()


def _add_up(folder: Path) -> Iterable[Metric]:
    with _locked(folder, fcntl.LOCK_SH):
        # The file of a process that starts at this moment may be empty.
        files = [str(path) for path in folder.glob("*.db") if _size_of(path)]
        return list(MultiProcessCollector.merge(files))


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[None]:
    """A scrape between the two steps of folding would count the dead twice, or not at all."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, operation)
        yield


def _process_of(path: Path) -> int | None:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdecimal() else None


def _is_alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _size_of(path: Path) -> int:
    with suppress(FileNotFoundError):  # of a gauge, deleted since
        return path.stat().st_size
    return 0
