"""Caching that is right under load: in memory, in Redis, or both, with invalidation that reaches every process."""

from app.cache.cache import Cache, Invalidate, Loaded, remembered
from app.cache.opening import open_cache
from app.cache.redis import open_redis

__all__ = ["Cache", "Invalidate", "Loaded", "open_cache", "open_redis", "remembered"]
