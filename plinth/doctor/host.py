"""The host: ports that another program has, and disks that are nearly full."""

import errno
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from plinth.doctor.findings import Finding, one_line
from plinth.settings import Settings

PROC = Path("/proc")
LISTENS = "0A"  # the state in /proc/net/tcp
MOST_USED_PERCENT = 95
LOCAL = {"127.0.0.1", "::1", "localhost"}
REDIS_PORT = 6379


def ports(settings: Settings, root: Path) -> Iterator[Finding]:
    others = {port: name for name, port in _ports_of_servers(settings)}
    for name, port in (("PORT", settings.port), ("METRICS_PORT", settings.metrics.port)):
        if port and (other := others.setdefault(port, name)) != name:
            mend = f"Set another {name}: `{name}={port + 1}`."
            yield Finding("ports", "error", f"{name}={port} is the port of {other} as well.", mend)
        elif port:
            yield _port(name, settings.host, port, root)


def _ports_of_servers(settings: Settings) -> Iterator[tuple[str, int]]:
    """The ports of servers on this host, whether they run or not."""
    for name, address in settings.database.addresses():
        yield from ((name, port) for host, port in zip(address.hosts, address.ports, strict=True) if host in LOCAL)
    if settings.redis.url:
        parts = urlsplit(settings.redis.url.get_secret_value())
        if parts.hostname in LOCAL:
            yield "REDIS_URL", parts.port or REDIS_PORT


def _port(name: str, host: str, port: int, root: Path) -> Finding:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            mend = f"Set {name} to a port from 1024 to 65535, and HOST to an address of this host."
            return Finding("ports", "error", f"{name}={port} on {host} cannot be used ({one_line(error)}).", mend)
    else:
        return Finding("ports", "ok", f"{name}={port} on {host} is free.")
    if (process := _listening(port)) is None:
        mend = f"If that is not this service, stop the program that listens there, or set another {name}."
        return Finding("ports", "warning", f"{name}={port} on {host} is in use.", mend)
    folder, command = _described(process)
    if folder == root:
        return Finding("ports", "ok", f"{name}={port} on {host} is served by this service (process {process}).")
    mend = f"kill {process}, or set another {name}: `{name}={port + 1}`."
    return Finding("ports", "error", f"{name}={port} on {host} is used by process {process}: {command}.", mend)


def _listening(port: int) -> int | None:
    """The process that listens on a port; None where /proc does not show it: on macOS, or of another user."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                (
                    _,
                    local,
                    _,
                    state,
                    *_,
                ) = line.split()
                if state == LISTENS and int(local.rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{line.split()[9]}]")
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):  # it was closed since it was listed
                    if os.readlink(descriptor) in sockets:
                        return int(process.name)
    return None


def _described(process: int) -> tuple[Path | None, str]:
    """Its working folder and its command line."""
    try:
        command = (PROC / str(process) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return Path(os.readlink(PROC / str(process) / "cwd")), command[:80]
    except OSError:
        return None, "it has ended since"


def disk(folders: Sequence[Path]) -> Iterator[Finding]:
    """Each file system that holds one of the folders, or what exists of its path."""
    for folder in {path.stat().st_dev: path for path in map(existing, folders)}.values():
        usage = shutil.disk_usage(folder)
        percent = 100 * usage.used // max(usage.used + usage.free, 1)
        sentence = f"The disk of {folder} is {percent} % full; {usage.free / 1e9:.1f} GB are free."
        if percent >= MOST_USED_PERCENT:
            yield Finding("disk", "warning", sentence, "Delete what is not needed, or give it a larger disk.")
        else:
            yield Finding("disk", "ok", sentence)


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
