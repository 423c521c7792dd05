"""What happens to PostgreSQL and to Valkey. Each of these lasts for `seconds`, and leaves everything as it was."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic, sleep

import asyncpg

from plinth.testing.locks import SetupError
from tests.faults.scraping import until
from tests.faults.service import USER, Service

TERMINATE = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{USER}'"
LATENCY_SECONDS = 2.0
BYTES_PER_SECOND = 20_000


def postgres_restarted(service: Service, seconds: float) -> None:
    """20 times, as an administrator does it."""
    for _ in range(20):
        service.postgres.process.stop()
        service.postgres.start()
        sleep(seconds / 20)


def postgres_killed(service: Service, seconds: float) -> None:
    assert service.postgres.process.pid
    os.kill(service.postgres.process.pid, signal.SIGKILL)
    service.postgres.process.stop()
    sleep(seconds)
    start_postgres(service)


def start_postgres(service: Service) -> None:
    """The processes of the one that was killed may still be ending."""
    for attempt in range(5):
        try:
            service.postgres.start()
            return
        except SetupError:
            if attempt == 4:
                raise


def postgres_terminates(service: Service, seconds: float) -> None:
    _repeat(seconds, lambda: service.fetch(TERMINATE))


def postgres_cut(service: Service, seconds: float) -> None:
    _repeat(seconds, lambda: service.database_proxy.cut(1))


def postgres_is_a_standby(service: Service, seconds: float) -> None:
    """As after a failover that the clients have not followed: it only reads, until it is promoted."""
    standby = service.postgres_data / "standby.signal"
    service.postgres.process.stop()
    standby.touch()
    os.chown(standby, service.postgres_data.stat().st_uid, -1)
    with suppress(SetupError):  # the database cannot be created, and is there already
        service.postgres.start()
    sleep(seconds)
    service.fetch("SELECT pg_promote()")


def postgres_is_silent(service: Service, seconds: float) -> None:
    with service.database_proxy.blackhole():
        sleep(seconds)


def postgres_is_slow(service: Service, seconds: float) -> None:
    with service.database_proxy.slow(LATENCY_SECONDS):
        sleep(seconds)


def postgres_is_narrow(service: Service, seconds: float) -> None:
    with service.database_proxy.narrow(BYTES_PER_SECOND):
        sleep(seconds)


def postgres_refuses(service: Service, seconds: float) -> None:
    with service.database_proxy.refuse():
        sleep(seconds)


def postgres_has_no_connection_left(service: Service, seconds: float) -> None:
    """Those that the service has end, and it is given no other."""
    service.execute(f"ALTER ROLE {USER} CONNECTION LIMIT 0")
    service.fetch(TERMINATE)
    try:
        sleep(seconds)
    finally:
        service.execute(f"ALTER ROLE {USER} CONNECTION LIMIT -1")


def redis_down(service: Service, seconds: float) -> None:
    service.redis.kill()
    sleep(seconds)
    service.redis.start()


def redis_is_slow(service: Service, seconds: float) -> None:
    with service.redis_proxy.slow(LATENCY_SECONDS):
        sleep(seconds)


def redis_is_half_open(service: Service, seconds: float) -> None:
    with service.redis_proxy.half_open():
        sleep(seconds)


def redis_flushed(service: Service, seconds: float) -> None:
    for _ in range(int(seconds)):
        _on_redis(service, lambda client: client.flushall())
        sleep(1)


def redis_out_of_memory(service: Service, seconds: float) -> None:
    _on_redis(service, lambda client: client.config_set("maxmemory", "1"))
    try:
        sleep(seconds)
    finally:
        _on_redis(service, lambda client: client.config_set("maxmemory", "0"))


def redis_restarted_in_a_pipeline(service: Service, seconds: float) -> None:
    """Replies end in their middle, and the server that comes back has forgotten everything."""

    def restart() -> None:
        service.redis_proxy.cut(2)
        until(lambda: service.redis_proxy.cuts == 0)
        service.redis.kill()
        service.redis.start()

    _repeat(seconds, restart)


def _repeat(seconds: float, action: Callable[[], object], pause_seconds: float = 1.0) -> None:
    end = monotonic() + seconds
    while monotonic() < end:
        action()
        sleep(pause_seconds)


def _on_redis(service: Service, command: Callable[[asyncpg.Connection], Awaitable[object]]) -> None:
    async def run() -> None:
        async with service.redis.client() as client:
            await command(client)

    asyncio.run(run())
