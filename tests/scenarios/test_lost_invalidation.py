"""An invalidation against a load under way: the invalidation wins, in every tier."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tiercache import Cache, MemoryTier, RedisTier

Invalidate = Callable[[Cache], Awaitable[object]]

WAYS: dict[str, Invalidate] = {
    "key": lambda cache: cache.invalidate("k"),
    "tag": lambda cache: cache.invalidate(tags=["t"]),
    "clear": lambda cache: cache.clear(),
}


@pytest.fixture(params=["memory", "redis", "both"])
def shared(
    request: pytest.FixtureRequest, make_cache: Callable[..., Cache], redis_url: str
) -> Callable[[], Cache]:
    """Make caches over the tiers in question, as two processes would."""

    def make() -> Cache:
        tiers: list[Any] = []
        if request.param != "redis":
            tiers.append(MemoryTier())
        if request.param != "memory":
            tiers.append(RedisTier(redis_url))
        return make_cache(*tiers)

    return make


@pytest.mark.parametrize("way", WAYS)
async def test_no_stale_fill(shared: Callable[[], Cache], way: str) -> None:
    """A load that began before an invalidation is readable nowhere after it."""
    cache = shared()
    database = {"value": "old"}
    read, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        value = database["value"]
        read.set()
        await go_on.wait()
        return value

    caller = asyncio.create_task(cache.get_or_load("k", load, ttl=60, tags=["t"]))
    await read.wait()
    database["value"] = "new"
    assert await WAYS[way](cache)
    late = asyncio.create_task(cache.get_or_load("k", load, ttl=60, tags=["t"]))
    await asyncio.sleep(0)
    go_on.set()
    assert await caller == "old"  # it asked before
    assert await late == "new"  # it asked after, and did not join the old load
    for reader in (cache, shared()):
        assert await reader.get_or_load("k", load, ttl=60, tags=["t"]) == "new"
        assert await reader.get("k") == "new"
    await cache.aclose()


def test_no_stale_fill_among_threads(cache: Cache) -> None:
    """The same for a sync function and threads."""
    database = {"value": "old"}
    read, go_on = threading.Event(), threading.Event()

    @cache.cached(ttl=60, tags=["t"])
    def load() -> str:
        value = database["value"]
        read.set()
        assert go_on.wait(10)
        return value

    results = []
    thread = threading.Thread(target=lambda: results.append(load()))
    thread.start()
    assert read.wait(10)
    database["value"] = "new"
    cache.sync.invalidate(tags=["t"])
    go_on.set()
    thread.join(10)
    assert results == ["old"]
    assert load() == "new"


async def test_a_copy_from_below_does_not_come_back(
    make_cache: Callable[..., Cache], redis_url: str
) -> None:
    """A value on its way from L2 into L1 is as stale as any other when it was invalidated."""
    tier = RedisTier(redis_url)
    cache = make_cache(MemoryTier(), tier)
    await cache.set("k", "old")
    cache._parts.local.void_all()
    read, go_on = asyncio.Event(), asyncio.Event()
    guarded = cache._parts.guarded[0]
    original = guarded.read

    async def slow_read(asks: Any) -> Any:
        answer = await original(asks)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return answer

    guarded.read = slow_read  # type: ignore[method-assign]
    reader = asyncio.create_task(cache.get("k"))
    await read.wait()
    await cache.invalidate("k")
    go_on.set()
    await reader
    assert await cache.get("k") is None
    await cache.aclose()


async def test_a_background_refresh_does_not_bring_it_back(cache: Cache, clock: Any) -> None:
    """A refresh that began before an invalidation stores nothing."""
    database = {"value": "old"}
    go_on = asyncio.Event()
    go_on.set()

    @cache.cached(ttl=10, refresh_ahead=0.5)
    async def load() -> str:
        value = database["value"]
        await go_on.wait()
        return value

    await load()
    clock.advance(6)
    go_on.clear()
    await load()  # starts the refresh
    await asyncio.sleep(0)
    database["value"] = "new"
    await load.invalidate()
    go_on.set()
    await asyncio.sleep(0)
    assert await load() == "new"


async def test_set_against_a_load(cache: Cache) -> None:
    """A load that began before a ``set`` does not replace what was set."""
    read, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        read.set()
        await go_on.wait()
        return "loaded"

    caller = asyncio.create_task(cache.get_or_load("k", load))
    await read.wait()
    await cache.set("k", "set")
    go_on.set()
    await caller
    assert await cache.get("k") == "set"
