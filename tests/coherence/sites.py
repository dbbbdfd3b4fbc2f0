"""Sites for schedules: shared tiers, a bus and a database, and caches over them as in processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from poolkit import Pool
from tests.coherence.caches import make_cache, make_pool
from tests.coherence.plan import Plan
from tests.waiting import until
from tiercache import Cache
from tiercache.tiers.guarded import GuardedTier

PATIENCE = 15.0

SITES = {
    "L1": Plan(l2=False, bus=None, database="sqlite"),
    "L1+L2, Redis bus": Plan(database="sqlite"),
    "L1+L2+L3, Redis bus": Plan(l3=True, database="sqlite"),
    "L1+L3, PostgreSQL bus": Plan(l2=False, l3=True, bus="postgres"),
    "L1+L3, SQLite bus": Plan(l2=False, l3=True, bus="sqlite", database="sqlite"),
    "L1+L2+L3, PostgreSQL bus": Plan(l3=True, bus="postgres"),
}
DEEP = ["L1+L2+L3, Redis bus", "L1+L2+L3, PostgreSQL bus"]
"""Two tiers below L1, with the bus in the upper one of them and apart from it."""

EVERY = [name for name in SITES if name != DEEP[1]]
"""What a race is run on: each bus, and each shared tier alone and behind another."""

SHARED = [name for name in EVERY if SITES[name].bus is not None]
"""Those with more than one process."""

EACH_BUS = ["L1+L2, Redis bus", "L1+L3, PostgreSQL bus", "L1+L3, SQLite bus"]
POSTGRES = ["L1+L3, PostgreSQL bus", "L1+L2+L3, PostgreSQL bus"]

_numbers = itertools.count(1)


class Site:
    """One place; each cache over it stands for a process, and has a pool of its own."""

    def __init__(self, plan: Plan, pool: Pool, name: str | None = None) -> None:
        self.plan = plan
        self.pool = pool
        self.name = name or f"site{next(_numbers)}"
        """The name of its caches, which keeps them apart from those of other sites."""
        self._caches: list[Cache] = []

    async def cache(self, **options: Any) -> Cache:
        """Make and open one more cache, that hears the others."""
        plan, pool = self.plan, self.pool
        made = make_cache(plan, pool, name=self.name, **options)
        self._caches.append(made)
        await made.open()
        if plan.bus is not None:
            await until(lambda: made._parts.background.bus_connected)
        return made

    async def two(self) -> tuple[Cache, Cache]:
        """Make two."""
        return await self.cache(), await self.cache()

    async def fresh(self) -> Cache:
        """Make one that has nothing of its own: it reads what the shared tiers hold."""
        return await self.cache()

    async def close(self) -> None:
        """Close every cache."""
        for cache in self._caches:
            await cache.aclose()


@asynccontextmanager
async def site(plan: Plan, *, like: Site | None = None) -> AsyncIterator[Site]:
    """Open a site, or another way to the one that is given; close all that is on it."""
    async with make_pool(plan) as pool:
        found = Site(plan, pool, None if like is None else like.name)
        try:
            yield found
        finally:
            await found.close()


class Halt:
    """An operation that stops once, before or after it is carried out, until it may go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def begun(self) -> None:
        """Wait until it has stopped."""
        await asyncio.wait_for(self.reached.wait(), PATIENCE)


def halt(tier: GuardedTier, operation: str, *, after: bool = False) -> Halt:
    """Halt the next such operation of this cache's tier."""
    original, stop = getattr(tier, operation), Halt()

    async def halting(*arguments: Any) -> Any:
        setattr(tier, operation, original)
        if after:
            answer = await original(*arguments)
        stop.reached.set()
        await asyncio.wait_for(stop.go_on.wait(), PATIENCE)
        return answer if after else await original(*arguments)

    setattr(tier, operation, halting)
    return stop


class Source:
    """A database of one row, whose loader can be stopped between reading and returning."""

    def __init__(self, value: str = "old") -> None:
        self.value = value
        self.loads = 0
        self.reached = asyncio.Event()
        self._go_on = asyncio.Event()
        self._go_on.set()

    def stop(self) -> None:
        """Let the next loads read and not return."""
        self.reached.clear()
        self._go_on.clear()

    async def begun(self) -> None:
        """Wait until one of them has read."""
        await asyncio.wait_for(self.reached.wait(), PATIENCE)

    def go_on(self) -> None:
        """Let them return."""
        self._go_on.set()

    async def load(self) -> str:
        """Read the row."""
        self.loads += 1
        value = self.value
        self.reached.set()
        await asyncio.wait_for(self._go_on.wait(), PATIENCE)
        return value
