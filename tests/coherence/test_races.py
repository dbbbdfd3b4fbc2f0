"""Every race that is known to put a stale value back, as a schedule that takes it step by step."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from tests.coherence.sites import DEEP, PATIENCE, SHARED, Site, Source, halt
from tests.waiting import until
from tiercache import Cache
from tiercache._recovery import Recovery
from tiercache.errors import TierError
from tiercache.lease import Leases
from tiercache.local import Local
from tiercache.setting import Setting

Invalidate = Callable[[Cache], Awaitable[object]]

WAYS: dict[str, Invalidate] = {
    "key": lambda cache: cache.invalidate("k"),
    "tag": lambda cache: cache.invalidate(tags=["t"]),
    "clear": lambda cache: cache.clear(),
}

shared = pytest.mark.parametrize("plan", SHARED, indirect=True)
deep = pytest.mark.parametrize("plan", DEEP, indirect=True)
by = pytest.mark.parametrize("way", ["key", "tag"])


async def get(cache: Cache, source: Source) -> str:
    """Read the row through the cache."""
    return await cache.get_or_load("k", source.load, ttl=60, tags=["t"])


async def kept(site: Site) -> str | None:
    """Return what the shared tiers hold."""
    cache = await site.fresh()
    found: str | None = await cache.get("k", type=str)
    return found


# -- an invalidation against a load that began before it ---------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_a_load_in_flight(place: Site, way: str) -> None:
    """What a loader read before the invalidation is readable in no tier after it."""
    cache, source = await place.cache(), Source()
    source.stop()
    early = asyncio.create_task(get(cache, source))
    await source.begun()
    source.value = "new"
    assert await WAYS[way](cache)
    source.go_on()
    assert await early == "old"  # it asked before
    assert await cache.get("k") is None
    assert await get(cache, source) == "new"
    assert await get(await place.fresh(), source) == "new"


@by
@shared
async def test_a_load_in_flight_in_another_process(place: Site, way: str) -> None:
    """The same for a load elsewhere: the tiers refuse it, and once it heard, so does its L1."""
    here, there = await place.two()
    source = Source()
    source.stop()
    early = asyncio.create_task(get(there, source))
    await source.begun()
    source.value = "new"
    assert await WAYS[way](here)
    assert await kept(place) is None
    await until(lambda: there._figures.tally.invalidations["bus"])
    source.go_on()
    assert await early == "old"
    assert await kept(place) is None
    assert await get(there, source) == "new"
    assert await get(here, source) == "new"


@by
async def test_who_comes_after_does_not_join(place: Site, way: str) -> None:
    """A caller who asks after the invalidation starts a load of his own."""
    cache, source = await place.cache(), Source()
    source.stop()
    early = asyncio.create_task(get(cache, source))
    await source.begun()
    source.value = "new"
    await WAYS[way](cache)
    late = asyncio.create_task(get(cache, source))
    await until(lambda: source.loads == 2)
    source.go_on()
    assert [await early, await late] == ["old", "new"]
    assert await get(cache, source) == "new"


@by
async def test_a_refresh_ahead(place: Site, way: str) -> None:
    """A refresh in the background that began before the invalidation stores nothing."""
    cache, source = await place.cache(), Source()

    @cache.cached(ttl=60, key="k", tags=["t"], refresh_ahead=1e-6)
    async def load() -> str:
        return await source.load()

    assert await load() == "old"
    source.stop()
    assert await load() == "old"  # and refreshes behind
    await source.begun()
    source.value = "new"
    await WAYS[way](cache)
    source.go_on()
    await until(lambda: not cache._parts.local.loads())
    assert await cache.get("k") is None
    assert await load() == "new"


@by
async def test_a_forced_refresh(place: Site, way: str) -> None:
    """A refresh that was asked for loses to an invalidation that came after it began."""
    cache, source = await place.cache(), Source()

    @cache.cached(ttl=60, key="k", tags=["t"])
    async def load() -> str:
        return await source.load()

    source.stop()
    refresh = asyncio.ensure_future(load.refresh())
    await source.begun()
    source.value = "new"
    await WAYS[way](cache)
    source.go_on()
    await refresh
    assert await load() == "new"
    assert await get(await place.fresh(), source) == "new"


@by
async def test_a_batch(place: Site, way: str) -> None:
    """Of a batch, what was invalidated meanwhile is stored nowhere, and the rest is."""
    cache = await place.cache()
    sources = {1: Source(), 2: Source()}

    @cache.cached_many(ttl=60, key="k{id}", tags=["t{id}"])
    async def load(id: Sequence[int]) -> dict[int, str]:
        return {each: await sources[each].load() for each in id}

    sources[2].stop()
    early = asyncio.create_task(load([1, 2]))
    await sources[2].begun()
    sources[1].value = "new"
    await (cache.invalidate("k1") if way == "key" else cache.invalidate(tags=["t1"]))
    sources[2].go_on()
    assert await early == {1: "old", 2: "old"}
    assert await cache.get("k1") is None
    assert await cache.get("k2") == "old"
    assert await load([1, 2]) == {1: "new", 2: "old"}


@by
@shared
async def test_a_promotion(place: Site, way: str) -> None:
    """A value on its way up from a shared tier is as stale as any other."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == "old"
    stop = halt(there._parts.guarded[0], "read", after=True)
    early = asyncio.create_task(get(there, source))
    await stop.begun()
    source.value = "new"
    await WAYS[way](here)
    await until(lambda: there._figures.tally.invalidations["bus"])
    stop.go_on.set()
    assert await early == "old"
    assert await get(there, source) == "new"


@by
@deep
async def test_a_promotion_from_the_bottom(place: Site, way: str) -> None:
    """A value on its way from L3 into L2 does not arrive behind an invalidation."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == "old"
    await here._parts.guarded[0].invalidate(["k"], [])  # as if L2 had evicted it
    stop = halt(there._parts.guarded[1], "read", after=True)
    early = asyncio.create_task(get(there, source))
    await stop.begun()
    source.value = "new"
    await WAYS[way](here)
    stop.go_on.set()
    assert await early == "old"
    assert await kept(place) is None
    assert await get(here, source) == "new"


@by
@shared
async def test_a_fill_on_its_way(place: Site, way: str) -> None:
    """A fill that was sent before the invalidation and arrives behind it is refused."""
    here, there = await place.two()
    source = Source()
    stop = halt(there._parts.guarded[0], "fill")
    early = asyncio.create_task(get(there, source))
    await stop.begun()
    source.value = "new"
    await WAYS[way](here)
    stop.go_on.set()
    assert await early == "old"
    assert await kept(place) is None
    assert await get(here, source) == "new"


async def test_set_against_a_load(place: Site) -> None:
    """A load that began before a ``set`` does not replace what was set."""
    cache, source = await place.cache(), Source()
    source.stop()
    early = asyncio.create_task(get(cache, source))
    await source.begun()
    await cache.set("k", "set", ttl=60, tags=["t"])
    source.go_on()
    await early
    assert await cache.get("k") == "set"
    if place.plan.bus is not None:
        assert await kept(place) == "set"


# -- the order of an invalidation ---------------------------------------------------------------


@by
@deep
async def test_a_reader_between_l3_and_l2(place: Site, way: str) -> None:
    """Who reads while L3 is empty and L2 is not yet finds nothing to bring back up."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == "old"
    stop = halt(here._parts.guarded[0], "invalidate")
    source.value = "new"
    invalidating = asyncio.ensure_future(WAYS[way](here))
    await stop.begun()
    await get(there, source)  # L2 still answers; that is nobody's promise yet
    stop.go_on.set()
    await invalidating
    assert await kept(place) is None
    await until(lambda: there._figures.tally.invalidations["bus"])
    assert [await get(here, source), await get(there, source)] == ["new", "new"]


@by
@shared
async def test_nobody_hears_before_the_tiers_are_done(place: Site, way: str) -> None:
    """Until the shared tiers are invalidated no L1 is emptied: it would refill from them."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == await get(there, source) == "old"
    stop = halt(here._parts.guarded[0], "invalidate")
    invalidating = asyncio.ensure_future(WAYS[way](here))
    await stop.begun()
    assert not there._figures.tally.invalidations["bus"]
    assert here._parts.local.lookup("k", ("t",)) is not None, "own L1 comes last"
    stop.go_on.set()
    await invalidating
    assert here._parts.local.lookup("k", ("t",)) is None
    await until(lambda: there._parts.local.lookup("k", ("t",)) is None)


@by
@shared
async def test_an_incomplete_pass(place: Site, way: str) -> None:
    """A tier that refuses is gone round by everybody, and emptied as soon as it works again."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == await get(there, source) == "old"
    lowest = here._parts.guarded[-1]
    original = lowest.invalidate

    async def refuse(*arguments: object) -> None:
        raise TierError("refused", tier=lowest.kind, operation="invalidate", unavailable=False)

    lowest.invalidate = refuse  # type: ignore[method-assign, assignment]
    source.value = "new"
    assert await WAYS[way](here) is False
    assert await get(here, source) == "new"
    await until(lambda: there._figures.tally.invalidations["bus"])
    assert await get(there, source) == "new"
    lowest.invalidate = original  # type: ignore[method-assign]
    for cache in (here, there):
        await until(partial(_is_whole, cache))
        assert await get(cache, source) == "new"
    assert await kept(place) in ("new", None)


def refuse_redis(cache: Cache, *operations: str) -> None:
    """Have Redis answer nothing but other operations of this cache."""

    async def refuse(*arguments: object) -> None:
        raise TierError("refused", tier="redis", operation="any", unavailable=False)

    for operation in operations:
        setattr(cache._parts.guarded[0], operation, refuse)


STEPS = {
    "remember": (Recovery, "add"),
    "void": (Local, "void"),
    "wake": (Leases, "invalidated"),
    "set": (Setting, "_fill_local"),
}


def read_after(
    step: str, cache: Cache, source: Source, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Read the row on this loop as soon as another thread has taken the step; return what came."""
    found: list[str] = []
    owner, name = STEPS[step]
    does, loop, here = getattr(owner, name), asyncio.get_running_loop(), threading.get_ident()

    def then_read(*arguments: Any, **options: Any) -> None:
        does(*arguments, **options)
        if threading.get_ident() != here:
            monkeypatch.setattr(owner, name, does)
            reading = asyncio.run_coroutine_threadsafe(get(cache, source), loop)
            found.append(reading.result(PATIENCE))

    monkeypatch.setattr(owner, name, then_read)
    return found


@by
@pytest.mark.parametrize("plan", [DEEP[1]], indirect=True)
@pytest.mark.parametrize("step", ["remember", "void", "wake"])
async def test_a_load_while_an_incomplete_pass_is_heard_of(
    place: Site, way: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps of hearing of it, a load brings back nothing from the tier below."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == await get(there, source) == "old"
    for cache in (here, there):  # nor shall it be emptied later
        refuse_redis(cache, "invalidate")
    found = read_after(step, there, source, monkeypatch)
    source.value = "new"
    assert await WAYS[way](here) is False
    await until(lambda: there._figures.tally.invalidations["bus"])
    assert found
    assert await get(there, source) == "new"


@pytest.mark.parametrize("plan", DEEP, indirect=True)
@pytest.mark.parametrize("step", ["remember", "set"])
async def test_a_load_while_a_set_misses_a_tier(
    place: Site, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be set in Redis is gone round before L1 is without it."""
    here, there = await place.two()
    source = Source()
    assert await get(here, source) == "old"
    refuse_redis(here, "lease", "invalidate", "fill")
    below, lower = here._parts.guarded[1], there._parts.guarded[1]
    lease = below.lease

    async def then_lose(*arguments: Any) -> Any:
        answer = await lease(*arguments)
        await lower.invalidate(("k",), ())
        return answer

    below.lease = then_lose  # type: ignore[method-assign, assignment]
    found = read_after(step, here, source, monkeypatch)
    source.value = "new"
    await asyncio.to_thread(here.sync.set, "k", "new", tags=["t"])
    assert found
    assert await get(here, source) == "new"


def _is_whole(cache: Cache) -> bool:
    return not cache._parts.background._invalidation.pending
