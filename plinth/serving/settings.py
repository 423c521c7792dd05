"""Settings of the server: `SERVER_KEEP_ALIVE_SECONDS` is `settings.server.keep_alive_seconds`, and so on."""

import os
import re
from ipaddress import ip_address
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
HOST_NAME = re.compile(r"(?=.{1,253}$)(?![0-9.]+$)[A-Za-z0-9_]+([.-]+[A-Za-z0-9_]+)*")


class ServerSettings(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    timeout_seconds: int = Field(30, ge=2, description="A worker that hangs for this long is killed and replaced.")
    blocked_seconds: float = Field(
        0.1, gt=0, description="Code that blocks the event loop for longer is logged with its stack."
    )
    graceful_timeout_seconds: int = Field(30, ge=2, description="Time a stopping worker has before it is killed.")
    drain_seconds: float = Field(
        2.0, ge=0, le=86_400, description="Time from SIGTERM to the stop; readiness answers 503."
    )
    drain_file: Path | None = Field(None, description="While it exists, readiness answers 503; `app drain` makes it.")
    keep_alive_seconds: int = Field(75, ge=1, description="Idle time of a connection; above the load balancer's.")
    header_timeout_seconds: float = Field(10.0, gt=0, description="Time a client has to send the header of a request.")
    body_timeout_seconds: float = Field(
        15.0, gt=0, description="Time over which a client must send 240 bytes of a body per second."
    )
    send_timeout_seconds: float = Field(
        60.0, gt=0, description="Time over which a client must read 240 bytes of a response per second."
    )
    cpu_processes: int = Field(1, ge=1, le=1024, description="Processes for CPU-bound work, per worker.")
    shed: bool = Field(True, description="Refuse requests that an overloaded worker could not answer in time.")
    queue_seconds: float = Field(
        0.4, gt=0, le=60, description="Longest wait for a turn in an overloaded worker; a burst may wait for a second."
    )
    limit_concurrency: int | None = Field(
        None, ge=2, description="A worker with this many connections or requests answers 503."
    )
    max_requests: int = Field(0, ge=0, description="Requests after which a worker is replaced; 0 is never.")
    max_requests_jitter: int = Field(0, ge=0, description="Random addition, so that workers are not replaced together.")


def available_cores() -> int:
    """Return the number of cores this process may use: its affinity, and the CPU limit of its container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_LIMIT.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def listen_address(host: str) -> str:
    """Raises ValueError unless it is an address or the name of a host."""
    try:
        ip_address(host)
    except ValueError:
        if not HOST_NAME.fullmatch(host):
            raise ValueError("must be an address or a host's name, without a scheme and a port") from None
    return host
