"""The rate limits of a worker: counts requests that arrive at the same time, and prints how many it accepts.

`python -m tests.plinth.security.counter REDIS_URL NAMESPACE REQUESTS`
"""

import asyncio
import sys

from plinth.cache import RedisSettings, open_redis
from plinth.security import Limits, LimitSettings
from plinth.security.settings import Limit

LIMIT = Limit(100, 3600)
NOON = 1_790_000_000.0


async def main(url: str, namespace: str, requests: int) -> int:
    async with open_redis(RedisSettings(url=url, timeout_seconds=20)) as redis:
        limits = Limits(LimitSettings(), redis, namespace=namespace, workers=2, timeout_seconds=20, clock=lambda: NOON)
        quotas = await asyncio.gather(*(limits.count("test", LIMIT, "ada") for _ in range(requests)))
        return sum(quota.remaining >= 0 for quota in quotas)


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
