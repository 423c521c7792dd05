"""Settings: all faults, and in spite of them what can be read."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

import plinth.settings
from plinth.doctor.configuration import Configuration, adopt_servers, read, secrets, unknown
from plinth.doctor.findings import Finding
from plinth.settings import DEVELOPMENT_SECRET_KEY, load_settings
from tests.plinth.doctor.support import the_one

GOOD_KEY = "0123456789abcdef" * 4
URL = "postgresql://me:0therw1se@db.example.com/shop"
PRODUCTION = {
    "APP_ENV": "production",
    "APP_SECRET_KEY": GOOD_KEY,
    "DATABASE_URL": f"{URL}?sslmode=require",
    "HTTP_ALLOWED_HOSTS": "*",
    "MAIL_HOST": "mail.example.com",
    "MAIL_SENDER": "shop@example.com",
}


@contextmanager
def given_only(environment: Mapping[str, str], dotenv: bytes = b"") -> Iterator[type[plinth.settings.Settings]]:
    with TemporaryDirectory() as folder, patch.dict(os.environ, environment, clear=True):
        (Path(folder) / ".env").write_bytes(dotenv)

        class Isolated(plinth.settings.Settings):
            model_config = {"env_file": str(Path(folder) / ".env"), "secrets_dir": None}  # noqa: RUF012

        yield Isolated


def examined(environment: Mapping[str, str], dotenv: bytes = b"") -> Configuration:
    with given_only(environment, dotenv) as kind:
        return read(lambda: load_settings(kind), kind)


def test_settings_that_can_be_used() -> None:
    read = examined({"PORT": "1234"})
    assert the_one(read.findings).level == "ok"
    assert read.settings is not None
    assert read.settings.port == 1234
    assert not read.wrong
    assert the_one(examined(PRODUCTION).findings).level == "ok"


@pytest.mark.parametrize(
    ("environment", "wrong"),
    [
        ({"PORT": "many"}, {"port"}),
        ({"PORT": "many", "DATABASE_POOL_SIZE": "0", "REDIS_URL": "x"}, {"port", "database", "redis"}),
        ({"DATABASE_URL": "mysql://h/d"}, {"database"}),
        ({"LOG_LEVEL": "LOUD"}, {"log"}),
        ({**PRODUCTION, "APP_SECRET_KEY": "short"}, set()),
        ({**PRODUCTION, "DATABASE_URL": URL, "APP_DEBUG": "yes"}, set()),
        ({**PRODUCTION, "DATABASE_URL": ""}, {"database"}),
        ({**PRODUCTION, "DATABASE_URL": "", "STORAGE_TIMEOUT_SECONDS": "0"}, {"database", "storage"}),
    ],
)
def test_every_fault_is_an_error_and_the_rest_is_read(environment: dict[str, str], wrong: set[str]) -> None:
    read = examined({**environment, "CACHE_NAMESPACE": "kept"})
    assert {finding.level for finding in read.findings} == {"error"}
    assert read.wrong == wrong
    assert read.settings is not None
    assert read.settings.cache.namespace == "kept"
    assert read.settings.production == ("APP_ENV" in environment)
    named = {finding.sentence.partition(":")[0] for finding in read.findings}
    assert named == read.names
    assert {name.partition("_")[0].lower() for name in named} >= wrong


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    read = examined({}, b"APP_NAME='not closed")
    assert the_one(read.findings).sentence.startswith("APP_NAME: cannot be read on line 1 of .env")
    assert read.settings is None


def test_unknown_names_are_found() -> None:
    with given_only(
        {"DATABASE_POL_SIZE": "1", "DATABSE_URL": "of another"}, b"PG=16\nDATABSE_URL=x\nIMAGE=y\n"
    ) as kind:
        found = [*unknown(kind)]
    assert [finding.level for finding in found] == ["warning"] * 2
    assert found[0].sentence == "DATABASE_POL_SIZE: is not a setting; is it DATABASE_POOL_SIZE?"
    assert found[1].sentence == "DATABSE_URL: is not a setting; is it DATABASE_URL?"
    with given_only({"DATABASE_URL": "", "PATH": "x", "DATABSE_URL": "x"}, b"PG=16\nEDGE_BIND=0.0.0.0\n") as kind:
        assert the_one(unknown(kind)).level == "ok"


def weak(environment: Mapping[str, str]) -> list[Finding]:
    read = examined(environment)
    assert read.settings is not None
    return [finding for finding in secrets(read.settings, read.names) if finding.level != "ok"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_SECRET_KEY", "x" * 40),
        ("DATABASE_CURSOR_KEY", "ab" * 20),
        ("METRICS_TOKEN", "sh0rt-key:42"),
        ("PROFILE_TOKEN", "sh0rt-key:42"),
        ("AUTH_PREVIOUS_KEY", "sh0rt-key:42"),
        ("DATABASE_URL", "postgresql://shop:Shop@db.example.com/shop?sslmode=require"),
        ("DATABASE_URL", "postgresql://db.example.com/shop?user=me&password=Postgres&sslmode=require"),
        ("DATABASE_REPLICA_URL", "postgresql://me:password@db.example.com/shop?sslmode=require"),
        ("REDIS_URL", "redis://:redis@cache.example.com/0"),
    ],
)
def test_a_weak_secret_is_a_warning_and_in_production_an_error(name: str, value: str) -> None:
    for environment, level in (({}, "warning"), (PRODUCTION, "error")):
        finding = the_one(weak({**environment, name: value}))
        assert (finding.level, finding.sentence.partition(" ")[0]) == (level, name)
        assert f" {value} " not in f"{finding.sentence} {finding.mend} "
        assert weak(environment) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_SECRET_KEY", DEVELOPMENT_SECRET_KEY),
        ("DATABASE_URL", "postgresql://service:development@postgres:5432/service?sslmode=require"),
    ],
)
def test_the_defaults_of_development_are_meant_there_and_found_once_in_production(name: str, value: str) -> None:
    assert weak({name: value}) == []
    read = examined({**PRODUCTION, name: value})
    assert read.settings is not None
    found = [*read.findings, *secrets(read.settings, read.names)]
    assert the_one(finding for finding in found if finding.level == "error").sentence.startswith(name)


def test_the_servers_of_a_run_are_used_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data/servers.env").write_text("PORT=9\nDATABASE_URL=postgresql://run/db\nREDIS_URL=redis://run\n")
    lock = tmp_path / ".data/lock"
    lock.touch()
    with given_only({"REDIS_URL": "redis://shell"}, b"PORT=8\n") as kind:
        adopt_servers(kind, tmp_path)
        assert dict(os.environ) == {"REDIS_URL": "redis://shell"}  # the run was killed
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            adopt_servers(kind, tmp_path)
        assert dict(os.environ) == {"REDIS_URL": "redis://shell", "DATABASE_URL": "postgresql://run/db"}
