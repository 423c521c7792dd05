"""Caching that is right under load: in memory, in Redis, or both, with invalidation that reaches every process."""

from app.cache.cache import Cache, Invalidate, Loaded, remembered
from app.cache.opening import open_cache, open_redis
from app.cache.responses import ResponseCacheMiddleware
from app.cache.routes import CachedRoutes, cached_response

__all__ = [
    "Cache",
    "CachedRoutes",
    "Invalidate",
    "Loaded",
    "ResponseCacheMiddleware",
    "cached_response",
    "open_cache",
    "open_redis",
    "remembered",
]
