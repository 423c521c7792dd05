"""CPU time, memory and cores of processes, read from Linux's /proc."""

import os
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def least_interrupted(cores: Sequence[int], softirqs: str) -> int:
    """The core with the fewest block-device interrupts.

    The kernel charges an interrupt to the process that it interrupts, and every commit ends with one.
    """
    head, _, rest = softirqs.partition("\n")
    found = re.search(r"BLOCK:(.*)", rest)
    counts = dict(zip(head.split(), map(int, found[1].split()), strict=True)) if found else {}
    return min(reversed(cores), key=lambda core: counts.get(f"CPU{core}", 0))


CORES = sorted(os.sched_getaffinity(0))
# The measured server has a core of its own; the load driver and PostgreSQL share the others.
SERVER_CORES = {least_interrupted(CORES, Path("/proc/softirqs").read_text())}
OTHER_CORES = set(CORES) - SERVER_CORES or set(CORES)
# Of a driver that must not wait for PostgreSQL's core: with two cores, it shares that of the measured server.
DRIVER_CORES = OTHER_CORES if len(OTHER_CORES) > 1 else SERVER_CORES


@contextmanager
def pinned(cores: Set[int]) -> Iterator[None]:
    """Pin this process, and all processes that it starts inside the block, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def process_tree(pid: int) -> list[int]:
    """The ids of the process and of all its descendants, the process itself first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(_stat(path)[1]), []).append(int(path.parent.name))
    members = [pid]
    for member in members:
        members += children.get(member, [])
    return members


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of the process and its descendants."""
    used = 0
    for member in process_tree(pid):
        with suppress(OSError):
            fields = _stat(Path(f"/proc/{member}/stat"))
            used += int(fields[11]) + int(fields[12])
    return used / TICKS


def busy_seconds(cores: Set[int]) -> float:
    """Time in which these cores ran any process or were taken from this virtual machine (steal), without interrupts."""
    used = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, _irq, _softirq, steal, *_ = map(int, times)
            used += user + nice + system + steal
    return used / TICKS


def memory_megabytes(pid: int) -> tuple[float, float]:
    """Resident memory (RSS), and the same with shared pages divided among the processes that share them (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name.rstrip(":"): int(value) for name, value, *_ in map(str.split, lines)}
    return kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024


def reset_peak(pid: int) -> float:
    """Forget the highest resident memory that a process has had. Returns what it has now, in megabytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory_megabytes(pid)[0]


def peak_megabytes(pid: int) -> float:
    """The highest resident memory of a process since `reset_peak`."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _stat(path: Path) -> list[str]:
    """The fields after the process name, which may itself contain spaces and brackets."""
    return path.read_text().rpartition(")")[2].split()
