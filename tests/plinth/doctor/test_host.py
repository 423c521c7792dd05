"""Ports that are in use, by whom, and full disks."""

import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from plinth.cache import RedisSettings
from plinth.database import DatabaseSettings
from plinth.doctor.host import disk, ports
from plinth.settings import Settings
from tests.plinth.doctor.support import the_one

LISTEN = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""
Usage = namedtuple("Usage", "total used free")


@contextmanager
def listening(folder: Path) -> Iterator[tuple[int, int]]:
    """A program in this folder. Yields its process and its port."""
    argv = [sys.executable, "-c", LISTEN]
    with subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        yield program.pid, int(program.stdout.readline())
        program.communicate("\n")


def with_port(port: int, **changes: object) -> Settings:
    return Settings(_env_file=None, host="127.0.0.1", port=port).model_copy(update=changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_free_port(tmp_path: Path) -> None:
    settings = with_port(free_port())
    assert the_one(ports(settings, tmp_path)).level == "ok"
    settings.metrics.port = free_port()
    found = [*ports(settings, tmp_path)]
    assert [finding.sentence.partition("=")[0] for finding in found] == ["PORT", "METRICS_PORT"]
    assert {finding.level for finding in found} == {"ok"}
    assert [*ports(with_port(0), tmp_path)] == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("PORT", ""),
        ("DATABASE_URL", "postgresql://localhost:{}/shop"),
        ("DATABASE_URL", "postgresql://db,[::1]:{}/shop"),
        ("REDIS_URL", "redis://me:pass@127.0.0.1:{}/0"),
    ],
)
def test_a_port_of_two_settings_is_an_error(name: str, url: str, tmp_path: Path) -> None:
    port = free_port()
    settings = with_port(port if name == "PORT" else free_port())
    settings.metrics.port = port
    secret = SecretStr(url.format(port))
    if name == "DATABASE_URL":
        settings.database = DatabaseSettings(url=secret)
    elif name == "REDIS_URL":
        settings.redis = RedisSettings(url=secret)
    first, second = ports(settings, tmp_path)
    assert first.level == "ok"
    assert (second.level, second.sentence) == ("error", f"METRICS_PORT={port} is the port of {name} as well.")
    assert second.mend == f"Set another METRICS_PORT: `METRICS_PORT={port + 1}`."


def test_the_port_of_a_server_on_another_host_may_be_the_same(tmp_path: Path) -> None:
    port = free_port()
    database = DatabaseSettings(url=SecretStr(f"postgresql://db.example.com:{port}/shop"))
    redis = RedisSettings(url=SecretStr(f"redis://cache.example.com:{port}/0"))
    assert the_one(ports(with_port(port, database=database, redis=redis), tmp_path)).level == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the process")
def test_the_program_that_has_a_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with listening(tmp_path / "other") as (process, port):
        finding = the_one(ports(with_port(port), tmp_path))
    assert finding.level == "error"
    assert f"used by process {process}: {sys.executable} -c" in finding.sentence
    assert (finding.mend or "").startswith(f"kill {process}, or set another PORT")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the process")
def test_the_service_itself_may_have_its_port(tmp_path: Path) -> None:
    with listening(tmp_path) as (process, port):
        finding = the_one(ports(with_port(port), tmp_path))
    assert (finding.level, finding.sentence.endswith(f"by this service (process {process}).")) == ("ok", True)


def test_a_port_of_an_unknown_program_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.doctor.host.PROC", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert the_one(ports(with_port(server.getsockname()[1]), tmp_path)).level == "warning"


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_a_host_that_is_not_here_is_an_error(host: str, tmp_path: Path) -> None:
    finding = the_one(ports(with_port(8000, host=host), tmp_path))
    assert (finding.level, f"PORT=8000 on {host} cannot be used" in finding.sentence) == ("error", True)


@pytest.mark.parametrize(("used", "level"), [(94, "ok"), (95, "warning"), (100, "warning")])
def test_a_disk_that_is_nearly_full_is_found(
    used: int, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * 10**9, used * 10**9, (100 - used) * 10**9))
    finding = the_one(disk([tmp_path / "not/there", tmp_path]))  # of one disk, there is one finding
    assert (finding.level, f"{used} % full; {100 - used}.0 GB" in finding.sentence) == (level, True)


def test_the_disks_of_folders_are_measured(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    differs = elsewhere.is_dir() and os.stat(elsewhere).st_dev != os.stat(tmp_path).st_dev
    folders = [tmp_path, elsewhere] if differs else [tmp_path]
    assert len([*disk(folders)]) == len(folders)
