"""The process-wide default cache, and the decorators that use it."""

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tiercache import Cache, cached, cached_many, configure, default_cache, defaults, invalidates


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without a default cache, and leave none behind."""
    monkeypatch.setattr(defaults, "_current", None)
    yield
    if defaults._current is not None:
        defaults._current.close()


def test_made_at_first_need() -> None:
    """Without `configure` the default cache is made when it is needed, once."""

    @cached(ttl=60)
    def load() -> int:
        return 1

    assert defaults._current is None, "decorating makes no cache"
    assert load() == 1
    assert default_cache() is default_cache()
    assert default_cache().stats().loads == 1


def test_made_once_by_many_threads() -> None:
    """Threads that need it at the same moment get the same cache."""
    barrier, caches = threading.Barrier(8), []

    def need() -> None:
        barrier.wait()
        caches.append(default_cache())

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(caches) == 8
    assert len(set(map(id, caches))) == 1


async def test_every_decorator_follows(make_cache: Callable[..., Cache]) -> None:
    """All three decorators of the package use the cache that is configured at the call."""
    calls: list[Any] = []

    @cached(ttl=60, tags=["t"])
    async def one(x: int) -> int:
        calls.append(x)
        return x

    @cached_many(ttl=60, key="m:{id}", tags=["t"])
    async def many(ids: list[int]) -> dict[int, int]:
        calls.append(ids)
        return dict.fromkeys(ids, 1)

    @invalidates(tags=["t"])
    async def write() -> None: ...

    for cache in (make_cache(name="a"), make_cache(name="b")):
        calls.clear()
        assert configure(cache) is cache
        for _ in range(2):
            await one(1)
            await many([1])
        assert len(calls) == 2
        await write()
        await one(1)
        await many([1])
        assert len(calls) == 4
        assert one.key(1) in await cache.get_many([one.key(1)])
    assert one.stats().loads == 4


def test_the_policy_of_the_new_cache_counts(make_cache: Callable[..., Cache], clock: Any) -> None:
    """A function takes over the defaults of the cache that it moves to."""
    from tiercache import CachePolicy

    calls = []

    @cached()
    def load() -> int:
        calls.append(1)
        return 1

    configure(make_cache(clock=clock))
    load()
    clock.advance(1_000_000)
    load()
    assert calls == [1]
    configure(make_cache(clock=clock, policy=CachePolicy(ttl=5)))
    load()
    clock.advance(6)
    load()
    assert calls == [1, 1, 1]


def test_an_anonymous_function_moves_to_shared_tiers(make_cache: Callable[..., Cache]) -> None:
    """What a shared cache would refuse when decorating it refuses at the first call."""
    from tiercache import KeyTemplateError

    load = cached(ttl=60)(lambda: 1)
    configure(make_cache())
    assert load() == 1
    configure(make_cache("redis://127.0.0.1:1/0"))
    with pytest.raises(KeyTemplateError, match="key="):
        load()


def test_functions_are_let_go(make_cache: Callable[..., Cache]) -> None:
    """A function that is gone is not kept for the sake of the default cache."""
    gc.collect()
    before = len(defaults._functions)
    configure(make_cache())
    load = cached(ttl=60)(lambda: 1)
    load()
    assert len(defaults._functions) == before + 1
    del load
    gc.collect()
    assert len(defaults._functions) == before
