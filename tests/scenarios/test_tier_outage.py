"""Redis down, hung, killed, full and lied to: reads go on, and nothing stale comes back."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tests.servers.redis import RedisServer
from tests.waiting import until
from tiercache import Cache, MemoryTier, RedisTier
from tiercache._redis import frames
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, Entry
from tiercache.tiers.guarded import GuardedTier

SECRET = "a secret of sixteen bytes or more"


@pytest.fixture
def caches(make_cache_here: Callable[..., Cache]) -> Callable[..., Cache]:
    """Make caches that are closed on the loop of the test."""
    return make_cache_here


@pytest.fixture
def frozen(private_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis that a test may pause; it is woken up before it is closed."""
    yield private_redis
    private_redis.resume()


def l2(cache: Cache) -> GuardedTier:
    """Return the cache's Redis tier."""
    [tier] = cache._parts.guarded
    return tier


async def loads(cache: Cache, count: int, start: int = 0) -> None:
    """Call a cached function, whose loader takes a millisecond, with so many arguments."""

    @cache.cached(ttl=60, key="x:{x}")
    async def load(x: int) -> int:
        await asyncio.sleep(0.001)
        return -x

    for x in range(start, start + count):
        assert await load(x) == -x


async def test_down_at_the_start(private_redis: RedisServer, caches: Callable[..., Cache]) -> None:
    """A cache whose Redis is down opens, works from memory, and finds it when it comes up."""
    private_redis.stop()
    cache = caches(MemoryTier(), RedisTier(private_redis.url))
    async with cache:
        await loads(cache, 20)
        assert l2(cache).circuit != "closed"
        assert await cache.invalidate("x:1") is False
        await asyncio.to_thread(private_redis.start)
        await until(lambda: l2(cache).circuit == "closed")
        await until(lambda: cache._parts.background.bus_connected)
        await loads(cache, 1, start=50)
        assert await asyncio.to_thread(private_redis.cli, "DBSIZE") > 0


async def test_hung(frozen: RedisServer, caches: Callable[..., Cache]) -> None:
    """A thousand calls against a Redis that hangs: one of them asks it, and it comes back."""
    cache = caches(MemoryTier(), RedisTier(frozen.url, timeout=0.1))
    await loads(cache, 5)
    counters = l2(cache).counters
    errors, skipped = counters.errors, counters.skipped
    await asyncio.to_thread(frozen.pause)
    await loads(cache, 1_000, start=1_000)
    assert counters.errors - errors == 1
    assert counters.skipped - skipped >= 999
    await asyncio.to_thread(frozen.resume)
    await until(lambda: l2(cache).circuit == "closed")
    errors, skipped = counters.errors, counters.skipped
    await until(lambda: cache._parts.background.bus_connected)
    await loads(cache, 5, start=5_000)
    assert (counters.errors, counters.skipped) == (errors, skipped)


async def test_hung_for_threads(frozen: RedisServer, caches: Callable[..., Cache]) -> None:
    """The same for a sync function in threads."""
    cache = caches(MemoryTier(), RedisTier(frozen.url, timeout=0.1))

    @cache.cached(ttl=60, key="x:{x}")
    def load(x: int) -> int:
        return -x

    assert await asyncio.to_thread(load, 0) == 0
    errors = l2(cache).counters.errors
    await asyncio.to_thread(frozen.pause)
    results = await asyncio.gather(*(asyncio.to_thread(load, x) for x in range(100)))
    assert results == [-x for x in range(100)]
    assert l2(cache).counters.errors - errors <= 16, "at most one for each thread at that moment"
    await asyncio.to_thread(frozen.resume)
    await until(lambda: l2(cache).circuit == "closed")


async def test_hung_at_the_start(frozen: RedisServer, caches: Callable[..., Cache]) -> None:
    """A cache whose Redis hangs when it is first used works from memory."""
    await asyncio.to_thread(frozen.pause)
    cache = caches(MemoryTier(), RedisTier(frozen.url, timeout=0.1))
    await loads(cache, 100)
    assert l2(cache).counters.errors == 1
    await asyncio.to_thread(frozen.resume)
    await until(lambda: l2(cache).circuit == "closed")


async def test_killed_and_restarted_empty(
    private_redis: RedisServer, caches: Callable[..., Cache]
) -> None:
    """After a restart that forgot everything, old values are misses and processes agree again."""
    one, other = (caches(MemoryTier(), RedisTier(private_redis.url)) for _ in range(2))
    await one.set("k", "old")
    assert await other.get("k") == "old"
    await asyncio.to_thread(private_redis.kill)
    assert await one.get_or_load("x", lambda: "loaded") == "loaded"
    await asyncio.to_thread(private_redis.start)
    for cache in (one, other):
        await until(lambda cache=cache: l2(cache).circuit == "closed")
        await until(lambda cache=cache: cache._parts.background.bus_connected)
    assert await asyncio.to_thread(private_redis.cli, "EXISTS", "k") == 0
    assert await other.get("k") is None
    await one.set("k", "new")
    await until(lambda: _reads(other, "k", "new"))
    assert await one.invalidate("k") is True
    await until(lambda: _reads(other, "k", None))


async def _reads(cache: Cache, key: str, value: object) -> bool:
    return bool(await cache.get(key) == value)


async def test_full(caches: Callable[..., Cache]) -> None:
    """A Redis that takes no more writes serves reads, loads go on, and deletions reach it."""
    with RedisServer(maxmemory="3mb", maxmemory_policy="noeviction") as server:
        cache = caches(MemoryTier(), RedisTier(server.url))
        other = caches(MemoryTier(), RedisTier(server.url))
        await cache.set("k", "old", tags=["t"])
        await other.open()
        server.cli("CONFIG", "SET", "maxmemory", "1mb")
        for x in range(20):
            assert await cache.get_or_load(f"x:{x}", lambda x=x: x) == x
        assert l2(cache).circuit == "closed"
        assert await other.get("k") == "old"
        await cache.invalidate("k")
        assert await cache.get("k") is None
        server.cli("CONFIG", "SET", "maxmemory", "100mb")
        await until(lambda: _reads(other, "k", None))
        fresh = caches(RedisTier(server.url))
        assert await fresh.get("k") is None
        assert await cache.invalidate("k", tags=["t"]) is True


async def test_an_invalidation_while_it_is_down(
    frozen: RedisServer, caches: Callable[..., Cache]
) -> None:
    """It returns False; the old value is never served again, and Redis loses it soon after."""
    cache = caches(MemoryTier(), RedisTier(frozen.url, timeout=0.1))
    slow = caches(RedisTier(frozen.url), bus=None)
    source = {"value": "old"}

    async def load() -> str:
        return source["value"]

    async def read() -> str:
        value: str = await cache.get_or_load("k", load, ttl=60, tags=["t"])
        return value

    assert await read() == "old"
    await asyncio.to_thread(frozen.pause)
    source["value"] = "new"
    assert await cache.invalidate(tags=["t"]) is False
    assert [await read() for _ in range(100)] == ["new"] * 100
    await asyncio.to_thread(frozen.resume)

    async def finished() -> bool:
        assert await read() == "new"
        return await slow.get("k") != "old"

    await until(finished, limit=5)  # about a second, with room for a busy machine
    cache._parts.local.void_all()
    assert await read() == "new"


# -- payloads that lie ----------------------------------------------------------------------------

SLOT = frames.Names("default").slot("k")
HEADER = 51
"""Bytes of a slot without tags that stand before its payload."""


class Poison:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _poisoned, ()


poisoned: list[int] = []


def _poisoned() -> str:
    poisoned.append(1)
    return "poisoned"


def sealed(value: object, key: str = "k", **options: Any) -> bytes:
    """Return the payload that another program, with other settings, would have written."""
    return Sealer(**options).seal(key, Entry(value, 0.0, FOREVER, FOREVER))


LIES: dict[str, tuple[dict[str, Any], Callable[[bytes], bytes]]] = {
    "another version": ({}, lambda payload: b"\xff" + payload[1:]),
    "empty": ({}, lambda payload: b""),
    "truncated": ({}, lambda payload: payload[:-1]),
    "all but gone": ({}, lambda payload: payload[:3]),
    "too long": ({}, lambda payload: payload + b"x"),
    "garbage": ({}, lambda payload: b"\x80\x04garbage" * 10),
    "of another key": ({}, lambda payload: sealed("lie", "other")),
    "of another key, signed": (
        {"secret": SECRET},
        lambda payload: sealed("lie", "other", secret=SECRET),
    ),
    "unsigned": ({"secret": SECRET}, lambda payload: sealed("lie")),
    "another secret": ({"secret": SECRET}, lambda payload: sealed("lie", secret=SECRET[::-1])),
    "one bit": (
        {"secret": SECRET},
        lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]),
    ),
    "a pickle": ({}, lambda payload: sealed(Poison(), codec="pickle", secret=SECRET[::-1])),
    "a pickle of another secret": (
        {"codec": "pickle", "secret": SECRET},
        lambda payload: sealed(Poison(), codec="pickle", secret=SECRET[::-1]),
    ),
    "a bare pickle": ({"codec": "pickle", "secret": SECRET}, lambda payload: _bare()),
}


def _bare() -> bytes:
    import pickle

    return pickle.dumps(Poison())


@pytest.mark.parametrize("lie", LIES)
async def test_payloads_that_lie(
    redis_server: RedisServer, redis_url: str, caches: Callable[..., Cache], lie: str
) -> None:
    """A payload that cannot be read is a miss, counted, executes nothing, and is removed."""
    options, replace = LIES[lie]
    writer = caches(RedisTier(redis_url), **options)

    async def lie_about_it() -> None:
        await writer.set("k", "value")
        await asyncio.to_thread(
            _change, redis_url, lambda raw: raw[:HEADER] + replace(raw[HEADER:])
        )

    await lie_about_it()
    assert await writer.get("k") is None
    assert await writer.get("k") is None
    assert l2(writer).counters.unreadable == 1
    await lie_about_it()
    assert await writer.get_or_load("k", lambda: "fresh") == "fresh"
    assert l2(writer).counters.unreadable == 2
    assert poisoned == []
    reader = caches(RedisTier(redis_url), **options)
    assert await reader.get("k") == "fresh"
    assert l2(reader).counters.unreadable == 0


@pytest.mark.parametrize("length", [0, 1, 16, 33, 48, 49, 50])
async def test_slots_that_are_cut_short(
    redis_url: str, caches: Callable[..., Cache], length: int
) -> None:
    """A slot that lost its end is a miss, too, for whoever asks, with tags and without."""
    cache = caches(RedisTier(redis_url))
    for tags in ([], ["t"]):
        await cache.set("k", "value", tags=tags)
        await asyncio.to_thread(_change, redis_url, lambda raw: raw[:length])
        assert await cache.get("k") is None
        assert await cache.get_or_load("k", lambda: "fresh", tags=tags) == "fresh"
        assert await cache.get("k") == "fresh"
        assert l2(cache).counters.errors == 0


async def test_tags_that_lie(redis_url: str, caches: Callable[..., Cache]) -> None:
    """A slot whose list of tags is longer than the slot is a miss."""
    cache = caches(RedisTier(redis_url))
    await cache.set("k", "value", tags=["t"])
    await asyncio.to_thread(
        _change, redis_url, lambda raw: raw[:49] + b"\xff\xff" + b"\xff" * 8 + raw[59:]
    )
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", lambda: "fresh", tags=["t"]) == "fresh"
    assert await cache.get("k") == "fresh"
    assert l2(cache).counters.errors == 0


async def test_another_kind_of_value(redis_url: str, caches: Callable[..., Cache]) -> None:
    """A slot that is no string in Redis fails no read."""
    cache = caches(RedisTier(redis_url))

    def plant() -> None:
        with redis.Redis.from_url(redis_url) as client:
            client.delete(SLOT)
            client.lpush(SLOT, "x")

    await asyncio.to_thread(plant)
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", lambda: "fresh") == "fresh"
    assert await cache.get("k") == "fresh"


def _change(url: str, change: Callable[[bytes], bytes]) -> None:
    with redis.Redis.from_url(url) as client:
        raw = client.get(SLOT)
        assert isinstance(raw, bytes)
        client.set(SLOT, change(raw), keepttl=True)
