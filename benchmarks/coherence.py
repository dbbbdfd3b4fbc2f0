"""What coherence costs: hits and fills beside the same build without it.

"Without" there is no bus, a miss takes no lease, and a fill writes whatever is there: a Redis tier
whose `lease` asks nobody and whose `fill` is a SET. All else is the same code. Wall-clock time
against a private server.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

from _measure import Sample, interleave_async
from _options import options
from _postgres import one_processor
from _report import save, show
from _servers import redis
from _tasks import one_task

from tiercache import Cache, MemoryTier, RedisTier
from tiercache._redis import frames
from tiercache.tiers.base import Ask, Basis, Fill, Filled, Leased

BASE, WITHOUT = "as it is", "without coherence"
TTL = 3600


class Careless(RedisTier):
    """Redis without leases and comparisons."""

    _generation = b""

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """Make leases up."""
        if not self._generation:
            [basis] = await super().lease(asks[:1], ttl)
            assert isinstance(basis, Basis)
            self._generation = basis.run
        token = os.urandom(frames.TOKEN)
        return [Basis(ask.key, token, (), self._generation) for ask in asks]

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """Write whatever is there."""
        names, size = self._bound, frames.TOKEN
        sets = [
            (
                b"SET",
                names.slot(fill.basis.key),
                frames.value(
                    fill.basis.token,
                    fill.basis.run[:size],
                    fill.basis.run[size:],
                    dict(fill.basis.tags),
                    fill.payload,
                ),
                b"PX",
                b"%d" % round((fill.ttl or TTL) * 1000),
            )
            for fill in fills
        ]
        await self._call(sets, "fill")
        return [Filled.STORED] * len(fills)


@asynccontextmanager
async def side(url: str, *, careful: bool) -> AsyncIterator[dict[str, object]]:
    """Yield what is called: a hit in memory, a hit in Redis, a miss."""
    fresh = count()
    bus = "auto" if careful else None
    tier = RedisTier if careful else Careless
    name = BASE if careful else WITHOUT
    async with AsyncExitStack() as stack:
        memory = Cache(MemoryTier(), tier(url, timeout=30), name=f"{name} 1", bus=bus)
        shared = Cache(tier(url, timeout=30), name=f"{name} 2", bus=bus)
        for cache in (memory, shared):
            await stack.enter_async_context(cache)

        @memory.cached(ttl=TTL, key="hit:{number}")
        async def hit(number: int) -> int:
            return number

        @shared.cached(ttl=TTL, key="hit:{number}")
        async def shared_hit(number: int) -> int:
            return number

        @shared.cached(ttl=TTL, key="fill:{number}")
        async def fill(number: int) -> int:
            return number

        await hit(1)
        await shared_hit(1)
        yield {
            "hit in memory": lambda: hit(1),
            "hit in Redis": lambda: shared_hit(1),
            "miss and fill of Redis": lambda: fill(next(fresh)),
        }
        assert shared_hit.stats().loads == 1


async def measure(url: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure one task."""
    results = {}
    async with side(url, careful=True) as ours, side(url, careful=False) as theirs:
        for work, share in (
            ("hit in memory", 1),
            ("hit in Redis", 20),
            ("miss and fill of Redis", 40),
        ):
            timed = {
                name: one_task(each[work], calls // share)  # type: ignore[arg-type]
                for name, each in ((BASE, ours), (WITHOUT, theirs))
            }
            results[work] = await interleave_async(timed, calls // share, rounds)
    return results


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=20_000, rounds=25)
    with one_processor(), redis() as url:
        results = asyncio.run(measure(url, arguments.calls, arguments.rounds))
    show("What coherence costs: median per call, and as a multiple of it", results, BASE)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds}
        save(arguments.json, "coherence", results, BASE, settings, [])


if __name__ == "__main__":
    main()
