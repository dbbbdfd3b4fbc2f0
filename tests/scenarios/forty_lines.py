"""A whole program: three tiers, an async and a sync function, every way to invalidate."""
# ruff: noqa: D103

import asyncio
import json
import sys

from poolkit import Pool
from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier

redis_url, dsn, *changes = sys.argv[1:]
pool = Pool(dsn, max_size=4)
cache = Cache(
    MemoryTier(max_entries=100), RedisTier(redis_url, timeout=5), DatabaseTier(pool), name="forty"
)
cache.on("user-changed", tags=["user:{user_id}"])


@cache.cached(ttl="5m", tags=["user:{user_id}"], key="name:{user_id}")
async def name(user_id: int) -> str:
    return str(await pool.fetchval("SELECT name FROM users WHERE id = $1", user_id))


@cache.cached(ttl="5m", tags=["user:{user_id}"], key="shout:{user_id}")
def shout(user_id: int) -> str:
    return asyncio.run(fetch(user_id)).upper()


async def fetch(user_id: int) -> str:
    async with pool.sibling(max_size=1) as mine:
        return str(await mine.fetchval("SELECT name FROM users WHERE id = $1", user_id))


async def main() -> None:
    async with pool, cache:
        for change in (None, *changes):
            async with pool.transaction() as tx:
                if change is not None:
                    await tx.execute("UPDATE users SET name = $1 WHERE id = 1", change)
                if change == "commit":
                    await cache.invalidate(tags=["user:1"])
            if change == "key":
                await cache.invalidate("name:1", "shout:1")
            elif change == "tag":
                await cache.invalidate(tags=["user:1"])
            elif change == "event":
                await cache.emit("user-changed", user_id=1)
            values = [await name(1), await name(1)]
            values += [await asyncio.to_thread(shout, 1), shout(1)]
            print(json.dumps([values, dict(cache.stats().hits), cache.stats().loads]), flush=True)


asyncio.run(main())
