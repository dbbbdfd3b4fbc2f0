"""What can be asked of strict functions and of a strict cache."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import Pool
from tests.tiercache.strict.table import Gate, strict_of
from tiercache import MISSING, Cache, CachePolicy, MemoryTier, PolicyError, RedisTier
from tiercache.testing import FakeClock


@pytest.fixture
def shared(
    make_cache: Callable[..., Cache], redis_url: str, clock: FakeClock
) -> Callable[..., Cache]:
    """Make caches on Redis, without any database."""
    return lambda **options: make_cache(
        MemoryTier(), RedisTier(redis_url, timeout=5), clock=clock, **options
    )


def test_memory_alone_is_refused(make_cache: Callable[..., Cache]) -> None:
    """There is nobody to ask what others have committed: refused where it is written."""
    cache = make_cache()
    with pytest.raises(PolicyError, match="RedisTier"):
        cache.cached(ttl=60, strict=True)(len)
    with pytest.raises(PolicyError, match="RedisTier"):
        make_cache(policy=CachePolicy(strict=True))
    with pytest.raises(PolicyError, match="RedisTier"):
        cache.sync.get_or_load("k", lambda: 1, strict=True)


def test_a_function_that_blocks(shared: Callable[..., Cache]) -> None:
    """Threads read strictly as tasks do, and share loads."""
    cache, calls = shared(), []
    entered, go_on = threading.Event(), threading.Event()

    @cache.cached(ttl=60, key="square:{n}", strict=True)
    def square(n: int) -> int:
        calls.append(n)
        entered.set()
        assert go_on.wait(10)
        return n * n

    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(square(3))) for _ in range(3)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while square.stats().coalesced < 2:
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert results == [9] * 3
    assert calls == [3]
    assert square(3) == 9
    assert square.peek(3) == 9
    assert cache._parts.local.lookup("square:3", None) is None
    assert square.invalidate(3) is True
    assert square.peek(3) is MISSING
    assert square.refresh(3) == 9
    assert calls == [3, 3]


async def test_a_batch(shared: Callable[..., Cache]) -> None:
    """The loader is called once, for those that are not there and that nobody else loads."""
    cache, asked = shared(), []
    gate = Gate()

    @cache.cached_many(ttl=60, key="cube:{id}", strict=True)
    async def cubes(ids: list[int]) -> dict[int, int]:
        asked.append(sorted(ids))
        if 4 in ids:
            await gate.stop()
        return {n: n**3 for n in ids if n < 10}

    assert await cubes([1, 2]) == {1: 1, 2: 8}
    first = asyncio.create_task(cubes([3, 4]))  # type: ignore[arg-type]
    await gate.reached.wait()
    second = asyncio.create_task(cubes([1, 4, 5, 11]))  # type: ignore[arg-type]
    while not cubes.stats().coalesced:
        await asyncio.sleep(0.001)
    gate.opened.set()
    assert await first == {3: 27, 4: 64}
    assert await second == {1: 1, 4: 64, 5: 125}
    assert asked == [[1, 2], [3, 4], [5, 11]]
    assert await cubes.peek(4) == 64
    await cache.aclose()


async def test_a_strict_cache(shared: Callable[..., Cache]) -> None:
    """With a strict policy everything is: set, get, get_many, get_or_load."""
    one, other = (shared(policy=CachePolicy(ttl=60, strict=True)) for _ in range(2))
    assert strict_of(one).expected
    assert await one.get("k") is None
    await one.set("k", 1, tags=["t"])
    assert await other.get("k") == 1
    assert await other.get_or_load("k", lambda: 2, tags=["t"]) == 1
    await one.set_many({"k": 3, "l": 4}, tags=["t"])
    assert await other.get_many(["k", "l", "m"]) == {"k": 3, "l": 4}
    assert await one.invalidate(tags=["t"]) is True
    assert await other.get_many(["k", "l", "m"]) == {}
    await one.set("k", 5)
    assert await one.clear() is True
    assert await other.get("k") is None
    for cache in (one, other):
        await cache.aclose()


async def test_set_and_a_transaction(shared: Callable[..., Cache], pool: Pool) -> None:
    """What is set while its key is marked is not kept, and what was there is gone."""
    cache = shared(policy=CachePolicy(ttl=60, strict=True))
    await cache.set("k", "before")
    async with pool.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'new' WHERE id = 1")
        await cache.set("k", "inside")
        assert await asyncio.create_task(cache.get("k")) == "before"
    assert await cache.get("k") in (None, "inside")
    await cache.aclose()


async def test_what_ages(shared: Callable[..., Cache], clock: FakeClock) -> None:
    """A value past its time stands in for a loader that fails; one that is due reloads behind."""
    cache, values = shared(), iter(range(1, 10))
    down = False

    @cache.cached(ttl=10, key="count", stale_for=10, refresh_ahead=0.5, strict=True)
    async def count() -> int:
        if down:
            raise OSError("down")
        return next(values)

    assert await count() == 1
    clock.advance(6)
    assert await count() == 1
    async with asyncio.timeout(10):
        while await count() == 1:
            await asyncio.sleep(0.001)
    down = True
    clock.advance(11)
    assert await count() == 2
    clock.advance(10)
    with pytest.raises(OSError, match="down"):
        await count()
    await cache.aclose()


async def test_what_is_not_kept(shared: Callable[..., Cache]) -> None:
    """``cache_if`` is asked, and a bypass goes round."""
    cache, calls = shared(), []

    @cache.cached(ttl=60, key="some:{n}", cache_if=bool, strict=True)
    async def some(n: int) -> int:
        calls.append(n)
        return n

    assert [await some(0), await some(0), await some(1), await some(1)] == [0, 0, 1, 1]
    assert calls == [0, 0, 1]
    with cache.bypass():
        await some(1)
    assert calls == [0, 0, 1, 1]
    await cache.aclose()


async def test_inside_a_transaction(shared: Callable[..., Cache], pool: Pool) -> None:
    """A transaction reads its own writes round the cache, and fills nothing."""
    cache, calls = shared(), []

    @cache.cached(ttl=60, key="name:{id}", tags=["user:{id}"], strict=True)
    async def name(id: int) -> Any:
        calls.append(id)
        return id

    await name(1)
    await name(2)
    async with pool.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'new' WHERE id = 1")
        await cache.invalidate(tags=["user:1"])
        assert [await name(1), await name(2), await name(1)] == [1, 2, 1]
        assert await name.peek(1) is MISSING
    assert calls == [1, 2, 1, 1]
    assert [await name(1), await name(1)] == [1, 1]
    assert calls == [1, 2, 1, 1, 1]
    await cache.aclose()


async def test_after_closing(shared: Callable[..., Cache], redis_url: str) -> None:
    """A cache that is entered again is as strict as before."""
    cache = shared()

    @cache.cached(ttl=60, key="one", strict=True)
    async def one() -> int:
        return 1

    async with cache:
        assert await one() == 1
    async with cache:
        assert await one() == 1
        assert strict_of(cache).expected
        assert one.stats().loads == 1
