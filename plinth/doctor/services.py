"""Redis, and the storage of files."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from plinth.cache import RedisSettings, open_redis
from plinth.doctor.findings import Finding, one_line
from plinth.doctor.host import existing
from plinth.errors import UnavailableError
from plinth.storage import StorageSettings, open_storage

PATIENCE_SECONDS = 2.0


async def redis(settings: RedisSettings) -> AsyncIterator[Finding]:
    if settings.url is None:
        yield Finding("redis", "ok", "REDIS_URL is not set, so nothing is cached.")
        return
    place = urlsplit(settings.url.get_secret_value()).netloc.rpartition("@")[2] or "its socket"
    patient = settings.model_copy(update={"timeout_seconds": max(PATIENCE_SECONDS, settings.timeout_seconds)})
    try:
        async with open_redis(patient) as client:
            yield _memory(await client.info("memory") if client else {}, place)
    except (RedisError, OSError) as error:
        sentence, mend = _refusal(error)
        yield Finding("redis", "error", f"Redis at {place} {sentence} ({one_line(error)}).", mend)


def _memory(memory: dict[str, Any], place: str) -> Finding:
    if memory.get("maxmemory") and memory.get("maxmemory_policy") == "noeviction":
        sentence = f"Redis at {place} has a `maxmemory` and evicts nothing: once it is full, nothing more is cached."
        return Finding("redis", "warning", sentence, "redis-cli CONFIG SET maxmemory-policy allkeys-lru")
    return Finding("redis", "ok", f"Redis at {place} answers.")


# The first that is true counts.
CAUSES: list[tuple[Callable[[Exception], bool], str, str]] = [
    (
        lambda error: isinstance(error, TimeoutError),
        "does not answer",
        "Check the address in REDIS_URL, and firewalls: packets are lost on the way.",
    ),
    (
        lambda error: isinstance(error, BusyLoadingError),
        "is loading its data",
        "Wait until it has; a cache needs no persistence (`--save '' --appendonly no`).",
    ),
    (
        lambda error: "protected mode" in str(error),
        "has no password, so it serves its own host only",
        "Give it a password (`requirepass`), and write that into REDIS_URL.",
    ),
    (
        lambda error: isinstance(error, AuthenticationError),
        "refuses the password, or needs one",
        "Correct it in REDIS_URL: redis://user:password@host:6379/0.",
    ),
    (
        lambda error: isinstance(error, ResponseError),
        "refuses a command",
        "Check the rights of the user in REDIS_URL.",
    ),
    (
        lambda error: isinstance(error.__context__, socket.gaierror),
        "has a host that cannot be resolved",
        "Check the host in REDIS_URL.",
    ),
    (
        lambda error: True,
        "cannot be reached",
        "Start it, or check REDIS_URL; where that is not set, nothing is cached.",
    ),
]


def _refusal(error: Exception) -> tuple[str, str]:
    return next((sentence, mend) for is_it, sentence, mend in CAUSES if is_it(error))


async def storage(settings: StorageSettings) -> AsyncIterator[Finding]:
    if settings.url:
        yield await _bucket(settings)
        return
    folder = existing(settings.folder)
    try:
        if not settings.folder.is_dir() and settings.folder.exists():
            raise NotADirectoryError(f"{settings.folder} is a file")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        sentence = f"Files cannot be stored in {settings.folder} ({error.strerror or error})."
        mend = f"mkdir -p {settings.folder} && chown $(id -u) {settings.folder}, or set STORAGE_FOLDER."
        yield Finding("storage", "error", sentence, mend)
    else:
        yield Finding("storage", "ok", f"Files can be stored in {settings.folder}.")


async def _bucket(settings: StorageSettings) -> Finding:
    try:
        async with asyncio.timeout(2 * settings.timeout_seconds), open_storage(settings) as storage:
            async for _ in storage.keys("doctor", datetime.now(UTC)):
                break
    except (UnavailableError, OSError) as error:
        reason = one_line(error.__cause__ or error)[:300]
        mend = "Check STORAGE_URL, STORAGE_ENDPOINT, STORAGE_REGION and the key; its rights include listing."
        return Finding("storage", "error", f"The bucket {settings.url} cannot be listed ({reason}).", mend)
    return Finding("storage", "ok", f"The bucket {settings.url} can be listed.")
