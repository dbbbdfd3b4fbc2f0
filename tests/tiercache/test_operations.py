"""Access by key: get, set, get_or_load and their like."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.ids import shown
from tiercache import Cache, CodecError, KeyTemplateError, MemoryTier, PolicyError, RedisTier
from tiercache.testing import FakeClock


@dataclass
class User:
    """A value that is not built in."""

    name: str


async def test_get_and_set(cache: Cache) -> None:
    """What was set is there, None included; what was not gives the default."""
    assert await cache.get("k") is None
    assert await cache.get("k", "default") == "default"
    await cache.set("k", None)
    assert await cache.get("k", "default") is None
    await cache.set("k", [1, 2])
    assert await cache.get("k") == [1, 2]


async def test_ttl(cache: Cache, clock: FakeClock) -> None:
    """A value is there for its ttl; without one until it is evicted or invalidated."""
    await cache.set("short", 1, ttl="10s")
    await cache.set("long", 1)
    clock.advance(9)
    assert await cache.get_many(["short", "long"]) == {"short": 1, "long": 1}
    clock.advance(2)
    assert await cache.get_many(["short", "long"]) == {"long": 1}
    with pytest.raises(PolicyError, match="ttl=-1"):
        await cache.set("k", 1, ttl=-1)


async def test_many(cache: Cache) -> None:
    """Several keys at once: those that are there."""
    await cache.set_many({"a": 1, "b": 2}, tags=["t"])
    assert await cache.get_many(["a", "b", "c", "a"]) == {"a": 1, "b": 2}
    assert await cache.get_many([]) == {}
    await cache.set_many({})
    await cache.invalidate(tags=["t"])
    assert await cache.get_many(["a", "b"]) == {}


async def test_invalidate(cache: Cache) -> None:
    """Keys and tags are invalidated together, and others stay."""
    await cache.set("a", 1)
    await cache.set("b", 1, tags=["x", "y"])
    await cache.set("c", 1, tags=["z"])
    assert await cache.invalidate("a", tags=["y"]) is True
    assert await cache.get_many(["a", "b", "c"]) == {"c": 1}
    assert await cache.clear() is True
    assert await cache.get_many(["a", "b", "c"]) == {}


async def test_get_or_load(cache: Cache, clock: FakeClock) -> None:
    """The loader, sync or async, is called if no tier has the key."""
    calls = []

    async def load() -> str:
        calls.append("async")
        return "a"

    assert await cache.get_or_load("k", load, ttl=10, tags=["t"]) == "a"
    assert await cache.get_or_load("k", load, ttl=10, tags=["t"]) == "a"
    assert await cache.get_or_load("sync", lambda: "b") == "b"
    assert calls == ["async"]
    clock.advance(11)
    await cache.get_or_load("k", load, ttl=10, tags=["t"])
    await cache.invalidate(tags=["t"])
    await cache.get_or_load("k", load, ttl=10, tags=["t"])
    assert len(calls) == 3


async def test_get_or_load_with_a_policy(cache: Cache, clock: FakeClock) -> None:
    """Policy options apply to that call: an old value stands in for a loader that fails."""

    def fail() -> str:
        raise ConnectionError

    options: dict[str, Any] = {"ttl": 10, "stale_for": 60}
    await cache.get_or_load("k", lambda: "old", **options)
    clock.advance(11)
    assert await cache.get_or_load("k", fail, **options) == "old"
    clock.advance(60)
    with pytest.raises(ConnectionError):
        await cache.get_or_load("k", fail, **options)
    with pytest.raises(PolicyError, match="tll"):
        await cache.get_or_load("k", fail, tll=5)  # type: ignore[call-arg]


async def test_the_version_is_part_of_the_key(cache: Cache) -> None:
    """Another version asks for another entry."""
    assert await cache.get_or_load("k", lambda: 1, version="1") == 1
    assert await cache.get_or_load("k", lambda: 2, version="2") == 2
    assert await cache.get_or_load("k", lambda: 3, version="1") == 1


async def test_a_loader_that_is_none(cache: Cache) -> None:
    """A value in the place of the loader is refused."""
    with pytest.raises(TypeError, match=r"loader=5 of get_or_load\('k', ...\).*lambda"):
        await cache.get_or_load("k", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", 5, None, b"k", "a\0b", "\ud800"], ids=shown)
async def test_bad_keys(cache: Cache, key: Any) -> None:
    """What is no key is refused by every method, whatever the tiers are."""
    for use in (
        lambda: cache.get(key),
        lambda: cache.set(key, 1),
        lambda: cache.set_many({"good": 1, key: 1}),
        lambda: cache.get_many(["good", key]),
        lambda: cache.get_or_load(key, lambda: 1),
        lambda: cache.invalidate("good", key),
    ):
        with pytest.raises(KeyTemplateError, match="is not a key"):
            await use()


async def test_one_text_for_many_keys(cache: Cache) -> None:
    """A text where a list of keys belongs would be read letter by letter."""
    with pytest.raises(KeyTemplateError, match=r"keys='abc'.*list"):
        await cache.get_many("abc")


@pytest.mark.parametrize("tags", ["user", [""], [5], ["a\0b"], ["\ud800"]], ids=shown)
async def test_bad_tags(cache: Cache, tags: Any) -> None:
    """So are bad tags."""
    for use in (
        lambda: cache.set("k", 1, tags=tags),
        lambda: cache.get_or_load("k", lambda: 1, tags=tags),
        lambda: cache.invalidate(tags=tags),
    ):
        with pytest.raises(KeyTemplateError, match="tags="):
            await use()


async def test_the_order_of_tags_does_not_matter(cache: Cache) -> None:
    """Two callers who name the same tags in another order share an entry."""
    assert await cache.get_or_load("k", lambda: 1, tags=["a", "b"]) == 1
    assert await cache.get_or_load("k", lambda: 2, tags=["b", "a", "b"]) == 1
    assert await cache.get_or_load("k", lambda: 3, tags=["a"]) == 3


async def test_shared_values(make_cache: Callable[..., Cache], redis_url: str) -> None:
    """On a shared tier ``type`` says what to build, and what cannot be kept is refused."""
    one, other = (make_cache(MemoryTier(), RedisTier(redis_url)) for _ in range(2))
    await one.set("user", User("ada"), tags=["t"])
    assert await other.get("user", type=User) == User("ada")
    await one.set("plain", {"a": (1, {2}), "b": b"x"})
    assert await other.get("plain") == {"a": (1, {2}), "b": b"x"}
    with pytest.raises(CodecError):
        await one.set("k", object())
    with pytest.raises(CodecError):
        await one.get_or_load("k", object)
    assert await other.get_many(["k", "plain"]) == {"plain": {"a": (1, {2}), "b": b"x"}}
    assert sum(other.stats().hits.values()) == 3
    await one.aclose()
    await other.aclose()


async def test_what_was_loaded_with_an_annotation_is_there_for_get(
    make_cache: Callable[..., Cache], redis_url: str
) -> None:
    """A plain value of an annotated loader can be read from a shared tier by its key alone."""
    one, other = (make_cache(MemoryTier(), RedisTier(redis_url)) for _ in range(2))

    async def load() -> str:
        return "value"

    await one.get_or_load("k", load)
    assert await other.get("k") == "value"
    await one.aclose()
    await other.aclose()


async def test_many_callers_of_get_or_load(cache: Cache) -> None:
    """Callers at the same time share one call of the loader."""
    calls = []

    async def load() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return 1

    assert await asyncio.gather(*(cache.get_or_load("k", load) for _ in range(10))) == [1] * 10
    assert calls == [1]
