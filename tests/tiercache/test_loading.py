"""The slow path under each option of the policy, on a clock that the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tiercache import Cache, CachePolicy, LoadTimeout
from tiercache.testing import FakeClock


async def turn(times: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(times):
        await asyncio.sleep(0)


class Source:
    """A loader whose answers the test decides."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def __call__(self) -> int:
        """Answer with the number of the call."""
        self.calls += 1
        call = self.calls
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return call


async def test_ttl(cache: Cache, clock: FakeClock) -> None:
    """A value is served until its ttl is over, and loaded anew after it."""
    source = Source()
    assert await cache.get_or_load("k", source, ttl=10) == 1
    clock.advance(9.9)
    assert await cache.get_or_load("k", source, ttl=10) == 1
    clock.advance(0.2)
    assert await cache.get_or_load("k", source, ttl=10) == 2


async def test_no_ttl(cache: Cache, clock: FakeClock) -> None:
    """Without any ttl a value stays until it is invalidated."""
    source = Source()
    await cache.get_or_load("k", source)
    clock.advance(10**9)
    assert await cache.get_or_load("k", source) == 1
    await cache.invalidate("k")
    assert await cache.get_or_load("k", source) == 2


async def test_default_ttl(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    """``ttl=None`` takes the cache's policy; "never" overrides it."""
    cache = make_cache(policy=CachePolicy(ttl=5), clock=clock)
    brief, lasting = Source(), Source()
    await cache.get_or_load("brief", brief)
    await cache.get_or_load("lasting", lasting, ttl="never")
    clock.advance(6)
    assert await cache.get_or_load("brief", brief) == 2
    assert await cache.get_or_load("lasting", lasting, ttl="never") == 1


async def test_jitter_shortens(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    """Jitter spreads expiry over the last part of the ttl, never beyond it."""
    cache = make_cache(clock=clock)
    keys = [str(i) for i in range(200)]
    for key in keys:
        await cache.get_or_load(key, Source(), ttl=100, jitter=0.5)
    clock.advance(49.9)
    assert len(await cache.get_many(keys)) == 200
    clock.advance(25.1)
    assert 40 < len(await cache.get_many(keys)) < 160
    clock.advance(25.1)
    assert await cache.get_many(keys) == {}


async def test_stale_on_error(cache: Cache, clock: FakeClock) -> None:
    """Past its ttl a value is served when the loader fails, for as long as stale_for."""
    source = Source()
    options: dict[str, Any] = {"ttl": 10, "stale_for": 20}
    await cache.get_or_load("k", source, **options)
    clock.advance(15)
    source.error = ValueError("down")
    assert await cache.get_or_load("k", source, **options) == 1
    assert cache.stats().stale == 1
    clock.advance(20)
    with pytest.raises(ValueError, match="down"):
        await cache.get_or_load("k", source, **options)


async def test_stale_is_not_served_after_an_invalidation(cache: Cache, clock: FakeClock) -> None:
    """What was invalidated is not served, not even as stale."""
    source = Source()
    await cache.get_or_load("k", source, ttl=10, stale_for=20, tags=["t"])
    clock.advance(15)
    source.error = ValueError("down")
    await cache.invalidate(tags=["t"])
    with pytest.raises(ValueError, match="down"):
        await cache.get_or_load("k", source, ttl=10, stale_for=20, tags=["t"])


async def test_stale_is_not_served_after_an_invalidation_meanwhile(
    cache: Cache, clock: FakeClock
) -> None:
    """Nor is it when the invalidation came while the load was under way that then failed."""
    source = Source()
    options: dict[str, Any] = {"ttl": 10, "stale_for": 20, "tags": ["t"]}
    await cache.get_or_load("k", source, **options)
    clock.advance(15)
    source.gate, source.error = asyncio.Event(), ValueError("down")
    caller = asyncio.create_task(cache.get_or_load("k", source, **options))
    await turn()
    await cache.invalidate(tags=["t"])
    source.gate.set()
    with pytest.raises(ValueError, match="down"):
        await caller


async def test_soft_timeout(cache: Cache, clock: FakeClock) -> None:
    """A slow load is left running behind while the stale value is served."""
    source = Source()
    options: dict[str, Any] = {"ttl": 10, "stale_for": 20, "soft_timeout": 0.01}
    await cache.get_or_load("k", source, **options)
    clock.advance(15)
    source.gate = asyncio.Event()
    assert await cache.get_or_load("k", source, **options) == 1
    source.gate.set()
    await turn(20)
    assert await cache.get_or_load("k", source, **options) == 2
    assert source.calls == 2


def test_soft_timeout_of_a_sync_function(cache: Cache, clock: FakeClock) -> None:
    """The same for a sync function: its load goes on in a thread."""
    import threading

    gate, done = threading.Event(), threading.Event()
    gate.set()
    calls = []

    @cache.cached(ttl=10, stale_for=20, soft_timeout=0.01)
    def load() -> int:
        calls.append(1)
        number = len(calls)
        assert gate.wait(10)
        if number > 1:
            done.set()
        return number

    assert load() == 1
    clock.advance(15)
    gate.clear()
    assert load() == 1
    gate.set()
    assert done.wait(10)
    assert load() == 2


async def test_hard_timeout(cache: Cache, clock: FakeClock) -> None:
    """A load that takes too long is given up with an error that names key, limit and way out."""
    source = Source()
    source.gate = asyncio.Event()
    with pytest.raises(LoadTimeout, match=r"'k'.*hard_timeout=0.01.*stale_for") as caught:
        await cache.get_or_load("k", source, ttl=10, hard_timeout=0.01)
    assert (caught.value.key, caught.value.timeout) == ("k", 0.01)
    source.gate = None
    assert await cache.get_or_load("k", source, ttl=10, hard_timeout=5) == 2


def test_hard_timeout_of_a_sync_function(cache: Cache) -> None:
    """A sync caller is not held longer than the hard timeout either."""
    import threading

    gate = threading.Event()

    @cache.cached(ttl=10, hard_timeout=0.01)
    def load() -> bool:
        return gate.wait(10)

    with pytest.raises(LoadTimeout):
        load()
    gate.set()


async def test_the_loaders_own_timeout_is_its_own(cache: Cache) -> None:
    """A TimeoutError of the loader passes unchanged, hard timeout or not."""
    error = TimeoutError("mine")

    async def load() -> int:
        raise error

    with pytest.raises(TimeoutError) as caught:
        await cache.get_or_load("k", load, ttl=10, hard_timeout=5)
    assert caught.value is error


async def test_refresh_ahead(cache: Cache, clock: FakeClock) -> None:
    """A hit late in the ttl is served and reloads behind; the new value has a whole ttl."""
    source = Source()

    @cache.cached(ttl=10, refresh_ahead=0.5)
    async def load() -> int:
        return await source()

    assert await load() == 1
    clock.advance(4)
    assert await load() == 1
    await turn(20)
    assert source.calls == 1
    clock.advance(2)
    assert [await load(), await load()] == [1, 1]
    await turn(20)
    assert source.calls == 2
    assert await load() == 2
    clock.advance(4.5)
    assert await load() == 2


def test_refresh_ahead_of_a_sync_function(cache: Cache, clock: FakeClock) -> None:
    """A sync function is reloaded in a thread of the cache's own."""
    import threading

    refreshed = threading.Event()
    calls = []

    @cache.cached(ttl=10, refresh_ahead=0.5)
    def load() -> int:
        calls.append(threading.current_thread())
        if len(calls) == 2:
            refreshed.set()
        return len(calls)

    load()
    clock.advance(6)
    assert load() == 1
    assert refreshed.wait(10)
    assert calls[1] is not threading.current_thread()


async def test_a_failed_refresh_keeps_the_value(cache: Cache, clock: FakeClock) -> None:
    """A background refresh that fails disturbs nobody, and is tried again later."""
    source = Source()
    options: dict[str, Any] = {"ttl": 10, "refresh_ahead": 0.5}
    await cache.get_or_load("k", source, **options)
    clock.advance(6)
    source.error = ValueError("down")
    assert await cache.get_or_load("k", source, **options) == 1
    await turn(20)
    assert source.calls == 2
    assert await cache.get_or_load("k", source, **options) == 1
    clock.advance(3)
    source.error = None
    assert await cache.get_or_load("k", source, **options) == 1
    await turn(20)
    assert await cache.get_or_load("k", source, **options) == 3


async def test_cache_if(cache: Cache) -> None:
    """What the predicate says no to is returned and not stored."""
    source = Source()
    options: dict[str, Any] = {"ttl": 10, "cache_if": lambda value: value > 1}
    assert await cache.get_or_load("k", source, **options) == 1
    assert await cache.get_or_load("k", source, **options) == 2
    assert await cache.get_or_load("k", source, **options) == 2


async def test_version(cache: Cache) -> None:
    """Another version of a function does not see what the one before has stored."""

    async def load() -> str:
        return "old"

    async def newer() -> str:
        return "new"

    old = cache.cached(ttl=10, key="k")(load)
    new = cache.cached(ttl=10, key="k", version=2)(newer)
    assert [await old(), await new(), await old()] == ["old", "new", "old"]


@pytest.mark.parametrize("how", ["shallow", "deep"])
async def test_copy(cache: Cache, how: Any) -> None:
    """With a copy, callers may change what they get without changing what is stored."""

    @cache.cached(ttl=10, copy=how)
    async def load() -> dict[str, list[int]]:
        return {"a": [1]}

    (await load())["b"] = [2]
    for _ in range(2):
        (await load())["c"] = [3]
    assert set(await load()) == {"a"}
    (await load())["a"].append(9)
    assert (await load())["a"] == ([1] if how == "deep" else [1, 9])


async def test_without_copy_the_object_itself(cache: Cache) -> None:
    """By default a hit is the very object that was loaded."""

    @cache.cached(ttl=10)
    async def load() -> list[int]:
        return [1]

    assert await load() is await load()


async def test_errors_are_not_cached_and_not_wrapped(cache: Cache) -> None:
    """A loader's own error is raised as it is, and the next call tries again."""
    source = Source()
    source.error = error = KeyError("x")
    with pytest.raises(KeyError) as caught:
        await cache.get_or_load("k", source)
    assert caught.value is error
    source.error = None
    assert await cache.get_or_load("k", source) == 2
    assert (cache.stats().loads, cache.stats().load_errors) == (2, 1)


async def test_refresh_loads_now(cache: Cache) -> None:
    """``refresh`` calls the function whatever is stored, and stores what it returns."""
    source = Source()

    @cache.cached(ttl=10)
    async def load() -> int:
        return await source()

    assert await load() == 1
    assert await load.refresh() == 2
    assert await load() == 2
