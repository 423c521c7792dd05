"""`app profile`: what a running worker does, as py-spy samples it from outside. Needs the extra `profiling`."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

CONFIGURATION = Path(__file__).resolve().parents[2] / "gunicorn.conf.py"
PROC = Path("/proc")
NO_PERMISSION = """Process {pid} may not be read by this user, which needs the capability SYS_PTRACE for that.
On a host, run this as root. In a container of Docker Compose:
docker compose exec --privileged --user root SERVICE app profile --output /tmp/profile.svg"""


def profile(
    context: typer.Context,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to sample it.")] = 10,
    output: Annotated[
        Path, typer.Option(help="A flame graph, or a file for https://www.speedscope.app if it ends in .json.")
    ] = Path("profile.svg"),
    pid: Annotated[int | None, typer.Option(help="Process to sample. Unset: the server's busiest worker.")] = None,
) -> None:
    """Write what a running worker of the server spends its time on.

    Example: app profile --seconds 10 --output profile.json
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if (spy := shutil.which("py-spy", path=places)) is None:
        sys.exit("py-spy is not installed; install the extra `profiling`.")
    if pid is None:
        if not PROC.exists():
            sys.exit("Workers can be found on Linux alone; name one by --pid.")
        if not (found := workers()):
            sys.exit("No worker of `app serve` runs here; name another process by --pid.")
        pid = max(found, key=_cpu_ticks)
    kind = "speedscope" if output.suffix == ".json" else "flamegraph"
    command = [spy, "record", "--pid", str(pid), "--duration", str(seconds), "--format", kind, "--output", str(output)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "permission denied" in done.stderr.lower():
        sys.exit(NO_PERMISSION.format(pid=pid))
    if done.returncode:
        sys.exit(f"py-spy failed: {done.stderr.partition('Stack backtrace')[0].strip()}")
    print(f"Process {pid} was sampled for {seconds} s: {output}")


def workers() -> list[int]:
    """The ids of the workers of Gunicorn's masters that run with this service's configuration."""
    parents: dict[int, int] = {}
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if str(CONFIGURATION) in (folder / "cmdline").read_text(errors="replace").split("\0"):
                parents[int(folder.name)] = int(_stat(int(folder.name))[1])
    return [pid for pid, parent in parents.items() if parent in parents]


def _stat(pid: int) -> list[str]:
    """The fields of the kernel's `stat` after the name of the program, which may contain anything."""
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(") ")[2].split()


def _cpu_ticks(pid: int) -> int:
    with suppress(OSError):
        user, system = _stat(pid)[11:13]
        return int(user) + int(system)
    return 0
