"""A process that commits and dies: ``python crash.py DSN REDIS_URL WHEN``, WHEN being a hook."""

import asyncio
import os
import signal
import sys

from poolkit import Pool
from tiercache import Cache, MemoryTier, RedisTier


async def main(dsn: str, redis_url: str, when: str) -> None:
    """Change a row, invalidate it in the same transaction, and be killed."""
    async with Pool(dsn, max_size=1) as pool:
        cache = Cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
        async with cache, pool.transaction() as tx:
            await tx.execute("UPDATE users SET name = 'new' WHERE id = 1")
            if when == "after":  # registered first: it comes before the invalidation
                tx.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
            await cache.invalidate(tags=["user:1"])
            await cache.emit("renamed", id=1)
            if when == "before":
                tx.before_commit(lambda: tx.before_commit(_die))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
