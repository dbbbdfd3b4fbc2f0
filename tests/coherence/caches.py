"""The caches of a trial: the whole one, and one for each shared tier alone."""

from __future__ import annotations

from typing import Any

from poolkit import Pool
from tests.coherence.plan import Plan
from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier

NAME = "trial"


def make_pool(plan: Plan) -> Pool:
    """Make the pool whose transactions carry the invalidations."""
    return Pool(
        plan.dsn,
        max_size=8,
        acquire_timeout=2,
        **({"connect_timeout": 1} if plan.database == "postgres" else {"writer_timeout": 2.0}),
    )


def make_cache(plan: Plan, pool: Pool, *, name: str = NAME, **options: Any) -> Cache:
    """Make the cache that applications would have."""
    tiers: list[Any] = []
    if plan.l1:
        tiers.append(MemoryTier(max_entries=10_000))
    if plan.l2:
        tiers.append(RedisTier(plan.redis))
    if plan.l3:
        tiers.append(DatabaseTier(pool))
    options.setdefault("bus_timeout", plan.bus_timeout)
    return Cache(*tiers, name=name, bus=make_bus(plan, pool), outbox=pool, **options)


def make_bus(plan: Plan, pool: Pool) -> Any:
    """Return what says which bus; where the cache would choose it by itself, it does."""
    if plan.bus is None:
        return None
    if plan.bus == "redis":
        return "auto" if plan.l2 else plan.redis
    return pool if plan.l2 else "auto"  # first of the tiers, or where the outbox is


def make_single(plan: Plan, pool: Pool) -> dict[str, Cache]:
    """Make a cache for each shared tier alone, which sees what the others keep in it."""
    single: dict[str, Cache] = {}
    if plan.l2:
        single["l2"] = Cache(RedisTier(plan.redis), name=NAME, bus=None, outbox=None)
    if plan.l3:
        single["l3"] = Cache(DatabaseTier(pool), name=NAME, bus=None, outbox=None)
    return single
