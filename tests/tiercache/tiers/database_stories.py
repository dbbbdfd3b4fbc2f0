"""What the tests of both databases tell alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tiercache.errors import TierError
from tiercache.tiers.base import Ask, Fill, RemoteTier

TTL = 60.0


@contextmanager
def failing(operation: str, way_out: str, *, unavailable: bool) -> Iterator[None]:
    """Expect a `TierError` that says what was asked and what can be done, its cause chained."""
    with pytest.raises(TierError, match=way_out) as caught:
        yield
    error = caught.value
    assert (error.tier, error.operation) == ("database", operation)
    assert f"({operation})" in str(error)
    assert error.unavailable is unavailable
    assert error.__cause__ is not None


async def nothing_stale(tiers: Sequence[RemoteTier]) -> int:
    """Load, refresh and invalidate one entry at random from several processes.

    A read that begins after an invalidation has returned finds nothing older than what that
    invalidation announced. Returns how many reads found something.
    """
    chance = random.Random(7)
    source = acknowledged = hits = 0

    async def loads(tier: RemoteTier) -> None:
        nonlocal hits
        for _ in range(60):
            oldest = acknowledged
            [stored] = await tier.read([Ask("a", ("t", "u"))])
            if stored is not None:
                hits += 1
                assert int(stored.payload) >= oldest
                basis = stored.basis
            else:
                [basis] = await tier.lease([Ask("a", ("t", "u"))], TTL)
            value = source
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            await tier.fill([Fill(basis, b"%d" % value, TTL)])

    async def invalidates(tier: RemoteTier) -> None:
        nonlocal source, acknowledged
        for _ in range(40):
            source += 1
            mine = source
            way = chance.randrange(3)
            if way == 0:
                await tier.invalidate(["a"], [])
            elif way == 1:
                await tier.invalidate([], ["u"])
            else:
                await tier.clear()
            acknowledged = max(acknowledged, mine)
            await tier.read([Ask("a", None)])

    writers = [invalidates(tier) for tier in tiers]
    await asyncio.gather(*map(loads, [*tiers, *tiers]), *writers)
    return hits
