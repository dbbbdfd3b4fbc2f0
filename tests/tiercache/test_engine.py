"""The engine: reads through the tiers, joined loads, forced refreshes, and what they count."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.tiercache.remote import FakeRemote
from tiercache import MISSING, Cache, MemoryTier
from tiercache.testing import FakeClock


class Tiers:
    """A cache over two fake tiers, and a way to empty the upper ones."""

    def __init__(self, make_cache: Callable[..., Cache], clock: FakeClock) -> None:
        self.l2, self.l3 = FakeRemote("redis"), FakeRemote("database")
        self.cache = make_cache(MemoryTier(), self.l2, self.l3, bus=None, clock=clock)

    def forget(self, *levels: str) -> None:
        """Empty some tiers, as an eviction would."""
        for level in levels:
            if level == "l1":
                self.cache._parts.local.void_all()
            else:
                {"l2": self.l2, "l3": self.l3}[level].values.clear()


@pytest.fixture
def tiers(make_cache: Callable[..., Cache], clock: FakeClock) -> Tiers:
    """Three tiers."""
    return Tiers(make_cache, clock)


async def test_filled_from_the_bottom(tiers: Tiers) -> None:
    """A miss asks from the top, leases on its way, and fills from the bottom."""
    log: list[str] = []
    tiers.l2.log = tiers.l3.log = log
    assert await tiers.cache.get_or_load("k", lambda: 1, tags=["t"]) == 1
    assert [each for each in log if not each.endswith("open")] == [
        "redis read",
        "redis lease",
        "database read",
        "database lease",
        "database fill",
        "redis fill",
    ]


async def test_every_level_answers_and_fills_those_above(tiers: Tiers) -> None:
    """A value is found on its level, counted there, and copied upwards."""
    cache = tiers.cache

    @cache.cached(ttl=60, key="k", tags=["t"])
    async def load() -> int:
        return 1

    await load()
    for levels in ((), ("l1",), ("l1", "l2")):
        tiers.forget(*levels)
        assert await load() == 1
    assert load.stats().hits == {"l1": 1, "l2": 1, "l3": 1}
    assert "k" in tiers.l2.values
    assert await load() == 1
    assert load.stats().hits["l1"] == 2
    assert load.stats().loads == 1


@pytest.mark.parametrize("level", ["l1", "l2", "l3"])
async def test_peek(tiers: Tiers, level: str) -> None:
    """``peek`` finds a value on every level without loading, leasing or filling shared tiers."""
    cache = tiers.cache

    @cache.cached(ttl=60, key="k")
    async def load() -> int:
        return 1

    assert await load.peek() is MISSING
    assert tiers.l2.leases == tiers.l3.leases == {}
    await load()
    tiers.forget(*{"l1": (), "l2": ("l1",), "l3": ("l1", "l2")}[level])
    assert await load.peek() == 1
    assert ("k" in tiers.l2.values) == (level != "l3")
    assert cache._parts.local.lookup("k", ()) is not None
    assert load.stats().loads == 1


async def test_a_tier_that_is_away_is_gone_round(tiers: Tiers) -> None:
    """A failing tier never fails a read: the next one answers, or the loader."""
    cache = tiers.cache
    await cache.get_or_load("k", lambda: 1)
    tiers.forget("l1")
    tiers.l2.away = True
    assert await cache.get_or_load("k", lambda: 2) == 1
    tiers.forget("l1")
    tiers.l3.away = True
    assert await cache.get_or_load("k", lambda: 3) == 3
    assert await cache.get_or_load("k", lambda: 4) == 3


@pytest.mark.parametrize("refused", ["read", "lease", "fill", "release"])
async def test_a_tier_that_refuses_one_thing(tiers: Tiers, refused: str) -> None:
    """Whatever a tier refuses, reads go on."""
    tiers.l2.refuses = tiers.l3.refuses = {refused}
    assert await tiers.cache.get_or_load("k", lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        await tiers.cache.get_or_load("fails", lambda: 1 // 0)
    assert await tiers.cache.get("k") == 1


async def test_leases_are_given_back(tiers: Tiers) -> None:
    """A load that came to nothing leaves no lease behind: failed, cancelled, or not to be kept."""
    cache = tiers.cache
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("fails", lambda: 1 // 0)
    await cache.get_or_load("unkept", lambda: 1, cache_if=lambda value: False)
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(cache.get_or_load("cancelled", hang))
    await started.wait()
    assert "cancelled" in tiers.l2.leases
    task.cancel()
    await asyncio.wait([task])
    for _ in range(20):
        await asyncio.sleep(0)
    assert tiers.l2.leases == tiers.l3.leases == {}
    assert tiers.l2.values == tiers.l3.values == {}


async def test_a_refresh_replaces_what_is_being_loaded(tiers: Tiers) -> None:
    """A load that began before a forced refresh does not replace what that brought, anywhere."""
    cache = tiers.cache
    started, go_on = asyncio.Event(), asyncio.Event()
    calls: list[int] = []

    @cache.cached(ttl=60, key="k")
    async def load() -> int:
        calls.append(1)
        number = len(calls)
        if number == 1:
            started.set()
            await go_on.wait()
        return number

    first = asyncio.create_task(load())  # type: ignore[arg-type]
    await started.wait()
    assert await load.refresh() == 2
    go_on.set()
    assert await first == 1
    assert await load() == 2
    tiers.forget("l1")
    assert await load() == 2
    tiers.forget("l1", "l2")
    assert await load() == 2
    assert len(calls) == 2


async def test_other_tags_are_another_entry(tiers: Tiers) -> None:
    """A load under other tags is not joined, and both callers get their own."""
    go_on = asyncio.Event()

    async def load(value: int) -> int:
        await go_on.wait()
        return value

    first = asyncio.create_task(tiers.cache.get_or_load("k", lambda: load(1), tags=["a"]))
    await asyncio.sleep(0)
    second = asyncio.create_task(tiers.cache.get_or_load("k", lambda: load(2), tags=["b"]))
    await asyncio.sleep(0)
    go_on.set()
    assert (await first, await second) == (1, 2)


async def test_a_batch_from_several_levels(tiers: Tiers) -> None:
    """A batch takes each id from where it is, and loads the rest at once."""
    cache = tiers.cache
    calls: list[list[int]] = []

    @cache.cached_many(ttl=60, key="{id}")
    async def load(ids: list[int]) -> dict[int, int]:
        calls.append(list(ids))
        return {each: -each for each in ids}

    await load([1, 2, 3])
    tiers.forget("l1")
    await load([1])
    del tiers.l2.values["3"]
    assert await load([1, 2, 3, 4, 5]) == {1: -1, 2: -2, 3: -3, 4: -4, 5: -5}
    assert calls == [[1, 2, 3], [4, 5]]
    assert load.stats().hits == {"l1": 1, "l2": 2, "l3": 1}
    assert load.stats().misses == 5


@pytest.fixture
def hectic() -> Iterator[None]:
    """Switch threads as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hectic")
def test_threads_that_ask_at_the_same_moment(cache: Cache) -> None:
    """One load per key, even if threads are switched between any two steps."""
    barrier = threading.Barrier(16)
    calls: list[int] = []

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        calls.append(x)
        threading.Event().wait(0.001)
        return x

    def call(x: int) -> int:
        barrier.wait(20)
        return load(x)

    with ThreadPoolExecutor(16) as threads:
        for x in range(200):
            assert list(threads.map(call, [x] * 16)) == [x] * 16
    assert calls == list(range(200))


@pytest.mark.usefixtures("hectic")
def test_threads_against_invalidations(cache: Cache) -> None:
    """No thread ever reads a value older than an invalidation that has returned."""
    source = {"version": 0}
    confirmed = 0
    stop = threading.Event()
    wrong: list[Any] = []

    @cache.cached(ttl=60, key="k", tags=["t"])
    def load() -> int:
        return source["version"]

    def read() -> None:
        while not stop.is_set():
            at_least = confirmed
            found = load()
            if found < at_least:
                wrong.append((found, at_least))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for version in range(1, 400):
        source["version"] = version
        if version % 2:
            cache.sync.invalidate("k")
        else:
            cache.sync.invalidate(tags=["t"])
        confirmed = version
    stop.set()
    for reader in readers:
        reader.join(20)
    assert wrong == []


async def test_who_looks_first_may_leave(tiers: Tiers) -> None:
    """A caller that is cancelled while it reads the first tier leaves the others to look again."""
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = tiers.l2.read

    async def slow(asks: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(asks)

    tiers.l2.read = slow  # type: ignore[method-assign]
    loads = []

    async def load() -> int:
        loads.append(1)
        return 1

    first = asyncio.ensure_future(tiers.cache.get_or_load("k", load))
    async with asyncio.timeout(10):
        await reading.wait()
        others = [asyncio.ensure_future(tiers.cache.get_or_load("k", load)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*others) == [1, 1, 1]
    assert first.cancelled()
    assert len(loads) == 1


async def test_who_waits_for_the_first_look_may_leave(tiers: Tiers) -> None:
    """A caller that has joined is no reason to give up what its leader still wants."""
    reading, go_on = asyncio.Event(), asyncio.Event()
    await tiers.cache.get_or_load("k", lambda: 1)
    tiers.forget("l1")
    read = tiers.l2.read

    async def slow(asks: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(asks)

    tiers.l2.read = slow  # type: ignore[method-assign]
    first = asyncio.ensure_future(tiers.cache.get_or_load("k", lambda: 2))
    async with asyncio.timeout(10):
        await reading.wait()
        other = asyncio.ensure_future(tiers.cache.get_or_load("k", lambda: 3))
        await asyncio.sleep(0)
        other.cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert await first == 1
    assert other.cancelled()
    tiers.l2.away = tiers.l3.away = True
    assert await tiers.cache.get_or_load("k", lambda: 4) == 1, "it has filled L1 all the same"


async def test_what_is_found_void_fills_nothing(tiers: Tiers) -> None:
    """An invalidation while the first tier is read: who asked before gets the old, L1 does not."""
    await tiers.cache.get_or_load("k", lambda: 1)
    tiers.forget("l1")
    read = tiers.l2.read

    async def raced(asks: Any) -> Any:
        found = await read(asks)
        tiers.l2.read = read  # type: ignore[method-assign]
        await tiers.cache.invalidate("k")
        return found

    tiers.l2.read = raced  # type: ignore[method-assign]
    assert await tiers.cache.get_or_load("k", lambda: 2) == 1
    assert await tiers.cache.get_or_load("k", lambda: 2) == 2
