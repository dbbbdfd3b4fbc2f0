"""The blocking face: every async name, from threads and inside a running loop."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tiercache import Cache, CacheClosed, MemoryTier, RedisTier
from tiercache.sync import SyncCache


def test_every_async_name_is_there() -> None:
    """What `Cache` awaits its blocking face has, too, with the same parameters."""
    names = [
        name
        for name, member in inspect.getmembers(Cache, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in ("open", "aclose", "settle")
    ]
    assert {"get", "set", "get_or_load", "get_many", "invalidate", "clear", "emit"} <= set(names)
    for name in names:
        blocking = getattr(SyncCache, name)
        assert not inspect.iscoroutinefunction(blocking)
        assert [
            (each.name, each.kind, each.default)
            for each in inspect.signature(blocking).parameters.values()
        ] == [
            (each.name, each.kind, each.default)
            for each in inspect.signature(getattr(Cache, name)).parameters.values()
        ]


def use(cache: Cache, key: str) -> None:
    """Use every blocking method once."""
    sync = cache.sync
    assert sync.get(key, "default") == "default"
    sync.set(key, 1, ttl=60, tags=[f"t:{key}"])
    assert sync.get(key) == 1
    sync.set_many({f"{key}a": 1, f"{key}b": 2})
    assert sync.get_many([f"{key}a", f"{key}b", "?"]) == {f"{key}a": 1, f"{key}b": 2}
    assert sync.get_or_load(f"{key}c", lambda: 3) == 3

    async def load() -> int:
        await asyncio.sleep(0)
        return 4

    assert sync.get_or_load(f"{key}d", load, ttl=60) == 4
    assert sync.invalidate(f"{key}a", tags=[f"t:{key}"]) is True
    assert sync.get_many([key, f"{key}a", f"{key}b"]) == {f"{key}b": 2}
    assert sync.emit("event", n=1) is True


def test_in_memory(make_cache: Callable[..., Cache]) -> None:
    """Without shared tiers the blocking face needs no server, and clears."""
    with make_cache() as cache:
        use(cache, "k")
        assert cache.sync.clear() is True
        assert cache.sync.get("kb") is None
    with pytest.raises(CacheClosed):
        cache.sync.get("k")


def test_with_redis(redis_url: str) -> None:
    """With Redis its requests run on the cache's own loop."""
    with Cache(MemoryTier(), RedisTier(redis_url)) as cache:
        use(cache, "k")
        assert cache.sync.clear() is True
        assert cache.sync.get("kb") is None


def test_from_several_threads(redis_url: str) -> None:
    """Threads use one cache at the same time."""
    with (
        Cache(MemoryTier(), RedisTier(redis_url)) as cache,
        ThreadPoolExecutor(8) as threads,
    ):
        for done in [threads.submit(use, cache, str(each)) for each in range(24)]:
            done.result(30)


async def test_inside_a_running_loop(redis_url: str) -> None:
    """A blocking call inside a loop blocks it, and works."""
    cache = Cache(MemoryTier(), RedisTier(redis_url))
    await cache.set("async", 1)
    use(cache, "k")
    assert cache.sync.get("async") == 1
    assert await cache.get("kb") == 2
    await cache.aclose()


def test_loops_that_come_and_go(redis_url: str) -> None:
    """One cache serves one ``asyncio.run`` after the other, threads between them, and closes."""
    cache = Cache(MemoryTier(), RedisTier(redis_url))
    for each in range(3):
        asyncio.run(cache.set(f"k{each}", each))
        assert cache.sync.get(f"k{each}") == each
        assert asyncio.run(cache.get_many([f"k{n}" for n in range(each + 1)])) == {
            f"k{n}": n for n in range(each + 1)
        }
    asyncio.run(cache.aclose())
    with pytest.raises(CacheClosed):
        cache.sync.get("k0")


async def test_both_faces_share_one_cache(make_cache: Callable[..., Cache]) -> None:
    """What one face stores the other reads; a thread joins the load of a loop."""
    cache = make_cache()
    started, go_on = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        started.set()
        await go_on.wait()
        return "async"

    task = asyncio.create_task(cache.get_or_load("k", load))
    await started.wait()
    thread = asyncio.create_task(
        asyncio.to_thread(cache.sync.get_or_load, "k", lambda: "of the thread")
    )
    while not cache.stats().coalesced:
        await asyncio.sleep(0.001)
    go_on.set()
    assert await task == await thread == "async"


def test_errors_of_a_loader(make_cache: Callable[..., Cache]) -> None:
    """A loader's own error is raised as it is, wherever the loader ran."""
    cache = make_cache()

    async def fail_async() -> int:
        raise ZeroDivisionError

    def fail() -> int:
        raise ZeroDivisionError

    for loader in (fail, fail_async):
        with pytest.raises(ZeroDivisionError):
            cache.sync.get_or_load("k", loader)


def test_with_opens_and_closes() -> None:
    """``with cache`` opens it, closes it, and may be entered again; its thread ends."""
    cache = Cache(name="blocking")
    for _ in range(2):
        with cache as entered:
            assert entered is cache
            cache.sync.set("k", 1)
        assert "tiercache-blocking" not in [each.name for each in threading.enumerate()]
        assert cache._life.state == "closed"
