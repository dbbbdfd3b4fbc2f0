"""`Cache`: what its constructor takes and refuses, and its life from opening to a fork."""

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.ids import shown
from tiercache import Cache, CacheClosed, CachePolicy, MemoryTier, PolicyError, RedisTier
from tiercache.bus.local import LocalBus
from tiercache.testing import FakeClock

NOWHERE = "redis://127.0.0.1:1/0"


# -- the constructor ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tiers", "options", "message"),
    [
        ((), {"name": ""}, r"name='' .*not empty"),
        ((), {"name": 5}, r"name=5 "),
        ((), {"policy": {"ttl": 5}}, r"policy=\{'ttl': 5\} .*CachePolicy"),
        ((), {"outbox": "postgresql://x"}, r"outbox='postgresql://x' .*Pool"),
        ((), {"bus": "redis"}, r"bus='redis' .*auto"),
        ((), {"bus": object()}, r"bus=<object"),
        ((), {"bus_timeout": -1}, r"bus_timeout=-1"),
        ((), {"bus_timeout": "soon"}, r"bus_timeout='soon'"),
        ((), {"codec": "pickle"}, r"secret"),
        ((), {"codec": "pikle"}, r"codec='pikle'"),
        ((), {"secret": "short"}, r"16"),
        ((5,), {}, r"5 is not a tier"),
        ((object(),), {}, r"is not a tier"),
        ((MemoryTier(), MemoryTier()), {}, r"two memory tiers"),
        ((NOWHERE, NOWHERE), {}, r"two redis tiers"),
        ((NOWHERE, MemoryTier()), {}, r"memory tier stands behind the redis tier.*first"),
    ],
    ids=lambda value: shown(value)[:40],
)
def test_settings_that_cannot_be_meant(
    tiers: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    """Each bad setting is refused at once, with its name, its value and what is accepted."""
    with pytest.raises(PolicyError, match=message):
        Cache(*tiers, **options)


def test_no_tier_means_memory() -> None:
    """``Cache()`` alone is a cache in memory, which no other process sees."""
    with Cache() as cache:
        assert cache.host.shared is False
        assert "MemoryTier" in repr(cache)
        cache.sync.set("k", 1)
        assert cache.sync.get("k") == 1
        assert cache.policy == CachePolicy()
        assert cache.name == "default"


def test_tiers_from_urls() -> None:
    """URLs make the same tiers as their classes do."""
    cache = Cache("memory://?max_entries=7", NOWHERE)
    assert "MemoryTier(max_entries=7" in repr(cache)
    assert "RedisTier" in repr(cache)
    assert cache.host.shared


def test_repr_keeps_secrets() -> None:
    """What a cache shows of itself holds no credentials, and says how it stands."""
    cache = Cache("redis://user:hunter2@127.0.0.1:1/0", secret="hunter2 hunter2 hunter2")
    assert "hunter2" not in repr(cache)
    assert repr(cache).endswith("new>")


def test_a_memory_tier_belongs_to_one_cache() -> None:
    """A memory tier cannot be shared by two caches: the second is refused."""
    tier = MemoryTier()
    with Cache(tier), pytest.raises(PolicyError):
        Cache(tier)


# -- open and close -------------------------------------------------------------------------------


async def test_open_close_and_open_again(cache: Cache) -> None:
    """Other use after closing raises, entering again opens anew, with nothing left of before."""
    calls = []

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        return x

    async with cache as entered:
        assert entered is cache
        await load(1)
        await load(1)
    for use in (
        lambda: load(1),
        lambda: cache.get("k"),
        lambda: cache.set("k", 1),
        lambda: cache.get_or_load("k", lambda: 1),
        lambda: cache.invalidate("k"),
        lambda: cache.clear(),
        lambda: cache.emit("x"),
    ):
        with pytest.raises(CacheClosed, match="'default' is closed; enter it again"):
            await use()
    assert calls == [1]
    async with cache:
        await load(1)
        await load(1)
    assert calls == [1, 1]
    assert cache.stats().hits["l1"] == 2


def test_blocking_use_after_closing(cache: Cache) -> None:
    """The same for threads, and closing twice does nothing."""

    @cache.cached(ttl=60)
    def load() -> int:
        return 1

    with cache:
        assert load() == 1
    cache.close()
    for use in (load, load.key, lambda: cache.sync.get("k"), lambda: cache.sync.emit("x")):
        with pytest.raises(CacheClosed):
            use()
    with cache:
        assert load() == 1


async def test_closing_one_that_was_never_used() -> None:
    """A cache that was never opened can be closed, either way."""
    await Cache(NOWHERE).aclose()
    Cache(NOWHERE).close()


@pytest.mark.parametrize("way", ["aclose", "close"])
async def test_closing_ends_loads_under_way(way: str) -> None:
    """Who waits for a load when the cache is closed hears of it; the loader is cancelled, once."""
    cache = Cache()
    calls, ended = [], []
    started = asyncio.Event()

    @cache.cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        return 1

    waiting = [asyncio.create_task(load()) for _ in range(2)]
    waiting.append(asyncio.create_task(load.refresh()))  # type: ignore[arg-type]
    await started.wait()
    await asyncio.sleep(0)
    if way == "aclose":
        await cache.aclose()
    else:
        cache.close()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert [type(each) for each in results] == [CacheClosed] * 3
    assert len(calls) == len(ended) == 2


def test_closing_from_another_thread() -> None:
    """A cache can be closed while another thread's loop waits for a load."""
    cache = Cache()
    started = threading.Event()

    async def main() -> None:
        async def load() -> int:
            started.set()
            await asyncio.Event().wait()
            return 1

        with pytest.raises(CacheClosed):
            await asyncio.wait_for(cache.get_or_load("k", load), 10)

    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    cache.close()
    thread.join(20)
    assert not thread.is_alive()
    assert not failures


async def test_closing_lets_an_invalidation_finish(redis_url: str) -> None:
    """An invalidation under way when the cache is closed reaches its tier all the same."""
    cache, other = Cache(RedisTier(redis_url)), Cache(RedisTier(redis_url))
    await cache.set("k", 1)
    under_way = asyncio.create_task(cache.invalidate("k"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.aclose()
    assert await under_way is True
    assert await other.get("k") is None
    await other.aclose()


async def test_closing_inside_a_loop(redis_url: str) -> None:
    """``with cache:`` in a running loop opens and closes a cache that the loop has used."""
    cache = Cache(MemoryTier(), RedisTier(redis_url))
    with cache:
        await cache.set("k", 1)
        assert cache.sync.get("k") == 1
    with pytest.raises(CacheClosed):
        await cache.get("k")
    async with cache:
        assert await cache.get("k") == 1


def test_an_unclosed_cache_ends_with_its_last_reference() -> None:
    """A cache that nobody closed ends its thread when it is collected."""
    cache = Cache(bus=LocalBus(), name="unclosed")
    cache.sync.set("k", 1)
    [thread] = [each for each in threading.enumerate() if each.name == "tiercache-unclosed"]
    gone = weakref.ref(cache)
    del cache
    gc.collect()
    assert gone() is None
    thread.join(10)
    assert not thread.is_alive()


# -- bypass ---------------------------------------------------------------------------------------


async def test_bypass(cache: Cache) -> None:
    """Inside a bypass calls go to the function and nothing is read or written."""
    calls = []

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        return len(calls)

    @cache.cached_many(ttl=60, key="m:{id}")
    async def many(ids: list[int]) -> dict[int, int]:
        calls.append(-1)
        return dict.fromkeys(ids, 0)

    assert await load(1) == 1
    with cache.bypass():
        assert await load(1) == 2
        assert await load(2) == 3
        assert await load.refresh(1) == 4
        assert not await load.peek(1)
        assert await cache.get_or_load("k", lambda: "fresh") == "fresh"
        assert await many([1]) == {1: 0}
        await cache.set("k", "unwritten")
        assert await cache.get("k", "default") == "default"
    assert await load(1) == 1
    assert await cache.get("k") is None
    assert await many([1]) == {1: 0}
    assert calls == [1, 1, 2, 1, -1, -1]


async def test_bypass_is_for_this_context(cache: Cache) -> None:
    """Other tasks and threads go on with the cache, unless the bypass is everywhere."""
    calls = []

    @cache.cached(ttl=60)
    def load() -> int:
        calls.append(1)
        return len(calls)

    load()
    elsewhere = contextvars.copy_context()
    with cache.bypass():
        assert elsewhere.run(load) == 1
        assert load() == 2
        assert await asyncio.to_thread(load) == 3  # it took the context along
    with cache.bypass(everywhere=True):
        assert elsewhere.run(load) == 4
        with cache.bypass(everywhere=True):
            pass
        assert elsewhere.run(load) == 5
    assert load() == 1


async def test_invalidations_take_place_in_a_bypass(cache: Cache) -> None:
    """What is invalidated inside a bypass is invalidated."""
    await cache.set("k", 1)
    with cache.bypass():
        await cache.invalidate("k")
    assert await cache.get("k") is None


def test_bypass_of_one_cache_is_not_of_another(make_cache: Callable[..., Cache]) -> None:
    """A bypass concerns one cache."""
    one, two = make_cache(), make_cache()
    two.sync.set("k", 1)
    with one.bypass():
        assert two.sync.get("k") == 1


# -- figures --------------------------------------------------------------------------------------


async def test_stats(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    """A snapshot counts what happened; one of a function counts that function alone."""
    cache = make_cache(MemoryTier(max_entries=2), clock=clock)

    @cache.cached(ttl=10)
    async def load(x: int) -> int:
        if x < 0:
            raise ValueError(x)
        return x

    assert cache.stats().hit_ratio == 0.0
    for x in (1, 1, 1, 2):
        await load(x)
    with pytest.raises(ValueError):
        await load(-1)
    await cache.get("absent")
    await cache.invalidate(load.key(2))
    stats, own = cache.stats(), load.stats()
    assert dict(own.hits) == {"l1": 2, "l2": 0, "l3": 0}
    assert (own.misses, own.loads, own.load_errors) == (2, 3, 1)
    assert own.hit_ratio == 0.5
    assert stats.misses == own.misses + 1
    assert stats.invalidations == 1
    with pytest.raises(TypeError):
        stats.hits["l1"] = 5  # type: ignore[index]
    for x in range(10, 20):
        await load(x)
    assert cache.stats().evictions >= 9
    assert stats.evictions == 0


def test_figures_outlive_a_function(cache: Cache) -> None:
    """What a function did counts on after it is gone."""

    def use() -> None:
        load = cache.cached(ttl=60, key="x")(lambda: 1)
        load()
        load()

    use()
    gc.collect()
    assert cache.stats().hits["l1"] == 1
    assert cache.stats().loads == 1


# -- fork -----------------------------------------------------------------------------------------


def in_a_child(work: Callable[[], object]) -> bool:
    """Run the work in a forked child; say whether it returned within ten seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            watchdog = threading.Timer(10, lambda: os._exit(3))
            watchdog.daemon = True
            watchdog.start()
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_has_a_cache_of_its_own(make_cache: Callable[..., Cache]) -> None:
    """A child begins with an empty cache that works, and the parent's goes on untouched."""
    cache = make_cache(bus=LocalBus())

    @cache.cached(ttl=60)
    def load() -> int:
        return os.getpid()

    assert load() == load() == os.getpid()

    def child() -> None:
        assert load() == load() == os.getpid()
        cache.sync.set("k", 1)
        assert cache.sync.get("k") == 1
        cache.close()

    assert in_a_child(child)
    assert load() == os.getpid()
    assert cache.stats().loads == 1


def test_a_fork_while_a_thread_holds_the_lock(make_cache: Callable[..., Cache]) -> None:
    """A child does not wait for a lock whose holder stayed behind in the parent."""
    cache = make_cache(bus=LocalBus())
    cache.sync.set("k", 1)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._parts.local.lock, cache._life.settings.portal._lock:
            held.set()
            assert go_on.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)

    def child() -> None:
        assert cache.sync.get("k") is None
        cache.sync.set("k", 2)
        assert cache.sync.get("k") == 2

    worked = in_a_child(child)
    go_on.set()
    thread.join(10)
    assert worked


def test_a_fork_inside_a_bypass(cache: Cache) -> None:
    """A child of a bypass can leave it and use the cache."""
    cache.sync.set("k", 1)

    def child() -> None:
        cache.sync.set("k", 2)
        assert cache.sync.get("k") == 2

    with cache.bypass():
        pass
    assert in_a_child(child)
    assert cache.sync.get("k") == 1
