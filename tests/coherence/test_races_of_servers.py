"""What servers forget, bring back or do not deliver: each of it is an invalidation, or a gap."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from poolkit.testing import FaultProxy
from tests.coherence.plan import Plan
from tests.coherence.sites import SHARED, SITES, Site, Source, site
from tests.coherence.test_races import get, kept
from tests.servers.redis import RedisServer
from tests.waiting import until
from tiercache import Cache
from tiercache._redis import frames
from tiercache.events import Event


@pytest.fixture
def redis_plan(private_redis: RedisServer, tmp_path: Path) -> Plan:
    """A plan on a Redis that the test may ill-treat."""
    return SITES["L1+L2, Redis bus"].at(
        redis=private_redis.url, dsn=f"sqlite:///{tmp_path}/races.db", bus_timeout=3.0
    )


def slot(cache: Cache) -> bytes:
    """Return the key under which Redis holds the row."""
    return frames.Names(cache.name).slot("k")


def tag(cache: Cache) -> bytes:
    """Return the key of its tag's token."""
    return frames.Names(cache.name).tag("t")


@pytest.mark.parametrize("loss", ["slot", "tag", "everything"])
async def test_what_redis_forgets_before_a_fill(
    redis_plan: Plan, private_redis: RedisServer, loss: str
) -> None:
    """A lease or a tag's token that is gone makes the fill void, and the next load a new one."""
    async with site(redis_plan) as place:
        cache, source = await place.cache(), Source()
        source.stop()
        early = asyncio.create_task(get(cache, source))
        await source.begun()
        what = {
            "slot": ("DEL", slot(cache)),
            "tag": ("DEL", tag(cache)),
            "everything": ("FLUSHALL",),
        }
        await asyncio.to_thread(private_redis.cli, *what[loss])
        source.go_on()
        assert await early == "old"
        assert await kept(place) is None
        source.value = "new"
        assert await cache.invalidate(tags=["t"])
        assert await get(await place.fresh(), source) == "new"


async def test_a_token_that_was_forgotten_is_not_made_again(
    redis_plan: Plan, private_redis: RedisServer
) -> None:
    """A tag whose token was evicted after an invalidation brings no old value back."""
    async with site(redis_plan) as place:
        cache, source = await place.cache(), Source()
        assert await get(cache, source) == "old"
        payload = await asyncio.to_thread(_dump, private_redis, slot(cache))
        source.value = "new"
        assert await cache.invalidate(tags=["t"])
        assert await get(cache, source) == "new"
        await asyncio.to_thread(private_redis.cli, "DEL", tag(cache))
        await asyncio.to_thread(_restore, private_redis, slot(cache), payload)
        assert await get(await place.fresh(), source) == "new"


async def test_a_server_that_comes_back_as_it_was(
    redis_plan: Plan, private_redis: RedisServer
) -> None:
    """What a restart from a snapshot, or a lagging replica, brings back is void."""
    async with site(redis_plan) as place:
        cache, source = await place.cache(), Source()
        assert await get(cache, source) == "old"
        names = frames.Names(cache.name)
        everything = [slot(cache), tag(cache), names.generation]
        saved = {key: await asyncio.to_thread(_dump, private_redis, key) for key in everything}
        source.value = "new"
        assert await cache.invalidate("k")
        await asyncio.to_thread(private_redis.restart)
        for key, payload in saved.items():
            await asyncio.to_thread(_restore, private_redis, key, payload)
        assert await kept(place) is None
        assert await get(await place.fresh(), source) == "new"


def _dump(server: RedisServer, key: bytes) -> bytes:
    with server._client(timeout=5) as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        dumped = client.dump(key)
        assert isinstance(dumped, bytes)
        return dumped


def _restore(server: RedisServer, key: bytes, payload: bytes) -> None:
    server.cli("RESTORE", key, 0, payload, "REPLACE")


async def test_a_gap(redis_plan: Plan, private_redis: RedisServer) -> None:
    """Who has missed events empties its L1 and voids its loads."""
    async with FaultProxy("127.0.0.1", private_redis.port) as wire:
        cut_off = redis_plan.at(redis=f"redis://127.0.0.1:{wire.port}/0", bus_timeout=60.0)
        async with site(redis_plan) as place, site(cut_off, like=place) as far:
            here, there = await place.cache(), await far.cache()
            source, other = Source(), Source()
            assert await get(there, source) == "old"
            other.stop()
            loading = asyncio.create_task(there.get_or_load("other", other.load))
            await other.begun()
            wire.black_hole()
            source.value = other.value = "new"
            await here.invalidate("k", "other")
            await asyncio.to_thread(private_redis.cli, "FLUSHALL")  # the event with it
            wire.cut()
            await until(lambda: there._figures.tally.invalidations["gap"])
            other.go_on()
            assert await loading == "old"
            assert await there.get_or_load("other", other.load) == "new"
            assert await get(there, source) == "new"


async def test_bus_timeout(redis_plan: Plan, private_redis: RedisServer) -> None:
    """An L1 that hears nothing any more asks below again."""
    async with FaultProxy("127.0.0.1", private_redis.port) as wire:
        cut_off = redis_plan.at(redis=f"redis://127.0.0.1:{wire.port}/0", bus_timeout=0.3)
        async with site(redis_plan) as place, site(cut_off, like=place) as far:
            here, there = await place.cache(), await far.cache()
            source = Source()
            assert await get(there, source) == "old"
            wire.black_hole()
            source.value = "new"
            assert await here.invalidate("k")
            await until(lambda: _reads(there, source))
            wire.heal()


async def _reads(cache: Cache, source: Source) -> bool:
    return await get(cache, source) == "new"


@pytest.mark.parametrize("plan", SHARED, indirect=True)
async def test_a_fill_tells_nobody(place: Site) -> None:
    """A hundred loads send no event: every process would drop what it has just loaded."""
    here, there = await place.two()
    heard: list[Event] = []
    background = there._parts.background
    background.heard = heard.append  # type: ignore[method-assign, assignment]
    source = Source()
    for number in range(100):
        await here.get_or_load(f"k{number}", source.load, tags=["t"])
    await here.emit("done")
    await until(lambda: heard)
    assert [event.name for event in heard] == ["done"]
