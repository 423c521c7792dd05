"""What both stores promise: an object is whole or not there, keys stay inside, and memory does not grow with it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plinth.errors import UnavailableError
from plinth.settings import Settings
from plinth.storage import Storage, StorageSettings, open_storage

Found = Callable[[], dict[str, bytes]]
LONG_AGO, SOON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=1)


async def chunks(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


async def read(storage: Storage, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start, end)])


async def keys(storage: Storage, prefix: str, before: datetime) -> list[str]:
    return sorted([key async for key in storage.keys(prefix, before)])


@pytest.mark.parametrize("contents", [(), (b"",), (b"abc",), (b"abc", b"", b"defg"), (b"x" * 200_000,) * 40])
async def test_what_was_put_is_read(storage: Storage, contents: tuple[bytes, ...]) -> None:
    await storage.put("folder/name", chunks(*contents))
    assert await read(storage, "folder/name") == b"".join(contents)


async def test_a_part_is_read(storage: Storage) -> None:
    content = bytes(range(256)) * 1000
    await storage.put("folder/name", chunks(content))
    for start, end in [(0, 1), (5, 70_000), (255_999, 256_000), (0, None), (255_990, None), (7, 7)]:
        assert await read(storage, "folder/name", start, end) == content[start:end], (start, end)


async def test_a_later_object_replaces_the_former_one(storage: Storage, files: Found) -> None:
    for content in (b"first", b"second"):
        await storage.put("folder/name", chunks(content))
    assert files() == {"name": b"second"}
    await storage.delete("folder/name")
    await storage.delete("folder/name")
    assert files() == {}


async def test_there_is_nothing_to_read(storage: Storage) -> None:
    with pytest.raises(UnavailableError, match="not there at this moment"):
        await read(storage, "folder/name")


@pytest.mark.parametrize("before", [0, 1, 30, 120])
async def test_what_ends_too_early_leaves_what_was_there(storage: Storage, files: Found, before: int) -> None:
    async def failing() -> AsyncIterator[bytes]:
        for _ in range(before):
            yield bytes(65_536)
        raise LookupError("The client is gone")

    await storage.put("folder/name", chunks(b"first"))
    with pytest.raises(LookupError):
        await storage.put("folder/name", failing())
    assert files() == {"name": b"first"}


async def test_a_cancelled_upload_leaves_nothing(storage: Storage, files: Found) -> None:
    waiting = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(65_536)
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(storage.put("folder/name", endless()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files().keys() <= {"upload.json"}  # what the server has begun, and the lifecycle rule of a bucket ends
    assert await keys(storage, "folder", SOON) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../name",
        "a/../../name",
        "a/..",
        "./a",
        "a//b",
        "a/",
        ".hidden",
        "a/.b",
        "a\\b",
        "a\0b",
        "a\nb",
        "ä",
        "a b",
        "a?b",
        "%2e%2e/a",
        "a" * 513,
    ],
)
async def test_a_key_does_not_leave_the_folder(storage: Storage, files: Found, key: str) -> None:
    for call in (
        storage.put(key, chunks(b"x")),
        storage.delete(key),
        read(storage, key),
        keys(storage, key, SOON),
    ):
        with pytest.raises(ValueError, match="no key"):
            await call
    assert files() == {}


async def test_the_keys_below_a_prefix_by_age(storage: Storage) -> None:
    assert await keys(storage, "one", SOON) == []
    for key in ("one/a", "one/b/c", "two/a"):
        await storage.put(key, chunks(b"x"))
    assert await keys(storage, "one", SOON) == ["one/a", "one/b/c"]
    assert await keys(storage, "one", LONG_AGO) == []


async def test_memory_does_not_grow_with_the_object(storage_settings: StorageSettings) -> None:
    """How many bytes are sent and not yet on their way, as the count of chunks that are alive."""
    most, alive = 0, 0

    class Counted(bytearray):
        def __init__(self) -> None:
            nonlocal alive
            super().__init__(65_536)
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    async def many() -> AsyncIterator[bytes]:
        nonlocal most
        for _ in range(1600):  # 100 MB
            yield Counted()  # type: ignore[misc]
            most = max(most, alive)

    async with open_storage(storage_settings) as storage:
        await storage.put("folder/name", many())
        async with aclosing(storage.read("folder/name")) as stream:
            sizes = [len(chunk) async for chunk in stream]
    gc.collect()
    assert sum(sizes) == 1600 * 65_536
    assert most <= (200 if storage_settings.url else 3)  # two parts of 5 MB
    assert max(sizes) <= 1_048_576


async def test_a_store_that_is_away(bucket: StorageSettings) -> None:
    away = bucket.model_copy(update={"endpoint": "http://127.0.0.1:1", "timeout_seconds": 0.2})
    async with open_storage(away) as storage:
        for call in (storage.put("a", chunks(b"x")), storage.delete("a"), read(storage, "a"), keys(storage, "a", SOON)):
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await call


async def test_a_bucket_that_does_not_exist(bucket: StorageSettings) -> None:
    async with open_storage(bucket.model_copy(update={"url": "s3://other"})) as storage:
        with pytest.raises(UnavailableError):
            await storage.put("a", chunks(b"x"))


async def test_objects_of_a_bucket_are_below_its_prefix(bucket: StorageSettings, tmp_path: Path) -> None:
    async with open_storage(bucket) as storage:
        await storage.put("folder/name", chunks(b"x"))
    assert (tmp_path / "bucket/some/prefix/folder/name").read_bytes() == b"x"


@pytest.mark.parametrize("url", ["s3://", "http://bucket", "s3://UPPER", "s3://a", "s3://bucket/../x", "bucket"])
def test_a_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must look like s3://bucket/prefix"):
        StorageSettings(url=url)


def test_a_bucket_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plinth.storage.settings.find_spec", lambda _: None)
    assert StorageSettings().url == ""
    with pytest.raises(ValueError, match="needs the `s3` extra; install it, or leave this out"):
        StorageSettings(url="s3://bucket")


def test_what_production_refuses() -> None:
    plain = StorageSettings(url="s3://bucket", endpoint="http://store:9000")
    assert [*plain.production_faults()] == [
        "STORAGE_ENDPOINT: must be https, or set STORAGE_ALLOW_PLAINTEXT=true where the network is private"
    ]
    assert [*plain.model_copy(update={"allow_plaintext": True}).production_faults()] == []
    assert [*StorageSettings(access_key="id").production_faults()] == [
        "STORAGE_ACCESS_KEY: must be set together with STORAGE_SECRET_KEY, or neither of them"
    ]
    assert "hidden" not in repr(Settings(storage={"secret_key": "hidden"}).storage)
    with pytest.raises(ValueError, match=r"must look like https://s3\.example\.com"):
        StorageSettings(endpoint="store:9000")
