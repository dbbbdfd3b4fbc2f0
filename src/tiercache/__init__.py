"""tiercache: a coherent cache of up to three tiers for functions, sync and async.

    from tiercache import cached

    @cached(ttl="5m", tags=["user:{user_id}"])
    async def get_user(user_id: int) -> User: ...

`Cache` composes L1 in memory (`MemoryTier`), L2 in Redis (`RedisTier`) and L3 in a database
(`DatabaseTier`). An invalidation wins against loads under way, in every process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiercache.cache import Cache
from tiercache.defaults import cached, cached_many, configure, default_cache, invalidates
from tiercache.entry import MISSING
from tiercache.errors import (
    CacheClosed,
    CodecError,
    KeyTemplateError,
    LoadCycle,
    LoadTimeout,
    PolicyError,
    TierCacheError,
    TierError,
)
from tiercache.policy import CachePolicy
from tiercache.stats import CacheStats
from tiercache.tiers.memory import MemoryTier

if TYPE_CHECKING:
    from tiercache.tiers.database import DatabaseTier
    from tiercache.tiers.redis import RedisTier

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheClosed",
    "CachePolicy",
    "CacheStats",
    "CodecError",
    "DatabaseTier",
    "KeyTemplateError",
    "LoadCycle",
    "LoadTimeout",
    "MISSING",
    "MemoryTier",
    "PolicyError",
    "RedisTier",
    "TierCacheError",
    "TierError",
    "cached",
    "cached_many",
    "configure",
    "default_cache",
    "invalidates",
]


def __getattr__(name: str) -> object:
    # The remote tiers are a third of the package; a cache in memory need not load them.
    if name == "RedisTier":
        from tiercache.tiers.redis import RedisTier

        return RedisTier
    if name == "DatabaseTier":
        from tiercache.tiers.database import DatabaseTier

        return DatabaseTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
