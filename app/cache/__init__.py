"""Redis, or nothing: what caches stand on."""

from app.cache.redis import open_redis

__all__ = ["open_redis"]
