"""Redis and the storage, right and wrong in each way."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from plinth.cache import RedisSettings
from plinth.doctor.findings import Finding
from plinth.doctor.services import redis, storage
from plinth.storage import StorageSettings
from plinth.testing.network import reserved_port
from plinth.testing.valkey import Valkey
from tests.plinth.doctor.support import listed, the_one
from tests.plinth.storage.conftest import bucket

__all__ = ["bucket"]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[str]:
    with reserved_port() as port:
        valkey = Valkey(tmp_path, durable=False, port=port)
        yield valkey.start().removesuffix("/0")
        valkey.process.stop()


async def of_redis(url: str | None) -> Finding:
    return the_one(await listed(redis(RedisSettings(url=SecretStr(url) if url else None))))


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """A server that answers this to all it receives."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(reply)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_without_redis_and_with_it(redis_url: str) -> None:
    assert (await of_redis(None)).level == (await of_redis(redis_url)).level == "ok"


@pytest.mark.parametrize(
    ("url", "sentence", "mend"),
    [
        ("redis://127.0.0.1:1", "cannot be reached", "Start it"),
        ("redis://nowhere.invalid", "has a host that cannot be resolved", "Check the host"),
    ],
)
async def test_a_redis_that_is_not_there(url: str, sentence: str, mend: str) -> None:
    finding = await of_redis(url)
    assert finding.level == "error"
    assert sentence in finding.sentence
    assert (finding.mend or "").startswith(mend)


@pytest.mark.parametrize(
    ("reply", "sentence", "mend"),
    [
        (b"", "does not answer", "firewalls"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "is loading its data", "Wait"),
        (b"-DENIED Redis is running in protected mode because\r\n", "has no password", "requirepass"),
    ],
)
async def test_a_redis_that_does_not_serve(
    reply: bytes, sentence: str, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plinth.doctor.services.PATIENCE_SECONDS", 0.2)
    async with answering(reply) as url:
        finding = await of_redis(url)
    assert finding.level == "error"
    assert sentence in finding.sentence
    assert mend in (finding.mend or "")


async def test_passwords_rights_and_the_eviction(own_redis: str) -> None:
    async with Redis.from_url(own_redis) as client:
        assert (await of_redis(own_redis)).level == "ok"
        await client.config_set("maxmemory", "100mb")
        finding = await of_redis(own_redis)
        assert (finding.level, finding.mend) == ("warning", "redis-cli CONFIG SET maxmemory-policy allkeys-lru")
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.acl_setuser("few", enabled=True, passwords=["+right"], commands=["+ping"])
        await client.config_set("requirepass", "right")
    place = own_redis.removeprefix("redis://")
    assert (await of_redis(f"redis://:right@{place}")).level == "ok"
    for url in (own_redis, f"redis://:wrong@{place}"):
        finding = await of_redis(url)
        assert "refuses the password, or needs one" in finding.sentence, finding
        assert "wrong" not in finding.sentence
    assert "refuses a command" in (await of_redis(f"redis://few:right@{place}")).sentence


async def of_storage(settings: StorageSettings) -> Finding:
    return the_one(await listed(storage(settings)))


async def test_a_folder(tmp_path: Path) -> None:
    assert (await of_storage(StorageSettings(folder=tmp_path / "not/yet"))).level == "ok"
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", Path("/proc/uploads")):
        finding = await of_storage(StorageSettings(folder=wrong))
        assert finding.level == "error"
        assert (finding.mend or "").startswith(f"mkdir -p {wrong} ")


async def test_a_bucket(bucket: StorageSettings, tmp_path: Path) -> None:
    assert (await of_storage(bucket)).level == "ok"
    away = bucket.model_copy(update={"endpoint": "http://127.0.0.1:1", "timeout_seconds": 1})
    for wrong in (away, bucket.model_copy(update={"url": "s3://other-bucket"})):
        finding = await of_storage(wrong)
        assert finding.level == "error", finding
        assert f"{wrong.url} cannot be listed (" in finding.sentence
        assert "secret" not in finding.sentence
    shutil.rmtree(tmp_path / "bucket")
