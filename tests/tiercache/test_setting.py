"""`set` is a load: whatever invalidates while it is under way wins over it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool
from tests.tiercache.remote import FakeRemote
from tiercache import Cache, MemoryTier, RedisTier
from tiercache.tiers.base import Fill


class Rollback(Exception):
    """Leave a transaction without committing it."""


@pytest.fixture
def make_cache(make_cache_here: Callable[..., Cache]) -> Callable[..., Cache]:
    """Make caches that are closed on the loop of the test."""
    return make_cache_here


@pytest.fixture
async def pool(sqlite_path: Path) -> AsyncIterator[Pool]:
    """A pool, for its transactions alone."""
    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        yield pool


@pytest.fixture
def caches(redis_url: str, make_cache: Callable[..., Cache], pool: Pool) -> tuple[Cache, Cache]:
    """Two caches that share a Redis, as in two processes."""
    tier = lambda: RedisTier(redis_url)  # noqa: E731
    one, other = (make_cache(MemoryTier(), tier(), outbox=pool) for _ in range(2))
    return one, other


def around_fill(
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: Callable[[], Awaitable[Any]] | None = None,
    after: Callable[[], Awaitable[Any]] | None = None,
) -> None:
    """Have something happen right before or after the next fill of the cache's shared tier."""
    tier = cache._parts.guarded[0].tier
    original = tier.fill

    async def fill(fills: Sequence[Fill]) -> Any:
        monkeypatch.setattr(tier, "fill", original)
        if before is not None:
            await before()
        filled = await original(fills)
        if after is not None:
            await after()
        return filled

    monkeypatch.setattr(tier, "fill", fill)


async def test_an_invalidation_meanwhile_wins(
    caches: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was set before it is readable nowhere after it."""
    one, other = caches
    async with one, other:
        around_fill(one, monkeypatch, before=lambda: other.invalidate("k"))
        await one.set("k", "old")
        assert await one.get("k") is None
        assert await other.get("k") is None


async def test_an_invalidation_before_memory_is_filled_wins(
    caches: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message may arrive when Redis has taken the value and memory has not yet."""
    one, other = caches
    async with one, other:

        async def invalidate() -> None:
            before = one.stats().invalidations
            await other.invalidate("k")
            async with asyncio.timeout(10):
                while one.stats().invalidations == before:
                    await asyncio.sleep(0.01)

        around_fill(one, monkeypatch, after=invalidate)
        await one.set("k", "old")
        assert await one.get("k") is None


async def test_the_later_of_two_wins(
    caches: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that was overtaken leaves the other's value alone."""
    one, other = caches
    async with one, other:
        around_fill(one, monkeypatch, before=lambda: other.set("k", "new"))
        await one.set("k", "old")
        assert await one.get("k") == "new"
        assert await other.get("k") == "new"


async def test_the_later_of_two_commits_wins(caches: tuple[Cache, Cache], pool: Pool) -> None:
    """A transaction that is slow after its commit does not bring its value back."""
    one, other = caches
    async with one, other:
        await one.set("k", "first")

        async def second() -> None:
            async with pool.transaction():
                await other.set("k", "third")

        async with pool.transaction() as tx:
            tx.on_commit(lambda: asyncio.create_task(second()))  # before the cache's own part
            await one.set("k", "second")
        assert await one.get("k") in ("third", None)
        assert await other.get("k") in ("third", None)


async def test_nobody_sees_it_before_the_commit(caches: tuple[Cache, Cache], pool: Pool) -> None:
    """The others read on, and what they read then does not outlive the commit."""
    one, other = caches
    database = ["old"]

    async def load() -> str:
        return database[0]

    async with one, other:
        assert await other.get_or_load("k", load) == "old"
        async with pool.transaction() as tx:

            async def look() -> None:
                # In a task of its own, which is outside the transaction.
                assert await asyncio.create_task(other.get_or_load("k", load)) == "old"

            await one.set("k", "new")
            tx.before_commit(look)
            await look()
            database[0] = "new"
        assert await one.get_or_load("k", load) == "new"


async def test_a_rollback_gives_the_leases_back(caches: tuple[Cache, Cache], pool: Pool) -> None:
    """Who comes next need not wait for them to run out."""
    one, other = caches
    async with one, other:

        def fail() -> None:
            raise Rollback

        with pytest.raises(Rollback):
            async with pool.transaction() as tx:
                await one.set("k", "never")
                tx.before_commit(lambda: tx.before_commit(fail))  # the last of all
        async with asyncio.timeout(2):
            assert await other.get_or_load("k", lambda: "loaded") == "loaded"
            assert await one.get_or_load("k", lambda: "?") == "loaded"


async def test_a_tier_that_is_away(make_cache: Callable[..., Cache]) -> None:
    """What could not be put there is put elsewhere, and the tier is gone round for that key."""
    upper, lower = FakeRemote("redis"), FakeRemote("database")
    cache = make_cache(MemoryTier(), upper, lower, bus=None)
    upper.refuses = {"lease", "invalidate"}
    await cache.set("k", 1)
    assert await cache.get("k") == 1
    assert "k" in lower.values
    assert "k" not in upper.values
    assert cache._parts.invalidation.pending


async def test_in_memory_alone(cache: Cache) -> None:
    """Without shared tiers it replaces what is there, and voids loads under way."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        began.set()
        await go_on.wait()
        return "old"

    loading = asyncio.create_task(cache.get_or_load("k", load))
    await began.wait()
    await cache.set("k", "new", tags=["t"])
    go_on.set()
    assert await loading == "old"
    assert await cache.get("k") == "new"
    await cache.invalidate(tags=["t"])
    assert await cache.get("k") is None
