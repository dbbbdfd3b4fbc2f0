"""Many callers, one load: across tasks, threads and event loops."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tiercache import Cache, LoadCycle


async def test_a_thousand_tasks(cache: Cache) -> None:
    """A thousand tasks that miss at once run the loader once."""
    calls = []

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0)
        return x

    assert await asyncio.gather(*(load(7) for _ in range(1000))) == [7] * 1000
    assert calls == [7]
    assert cache.stats().coalesced == 999


def test_sixty_four_threads(cache: Cache) -> None:
    """Sixty-four threads that miss at once run the loader once."""
    barrier = threading.Barrier(64)
    calls = []
    release = threading.Event()

    @cache.cached(ttl=60)
    def load(x: int) -> int:
        calls.append(x)
        assert release.wait(10)
        return x

    def call() -> int:
        barrier.wait()
        return load(7)

    with ThreadPoolExecutor(64) as threads:
        results = [threads.submit(call) for _ in range(64)]
        while cache.stats().coalesced < 63:
            threading.Event().wait(0.001)
        release.set()
        assert [each.result() for each in results] == [7] * 64
    assert calls == [7]


def test_a_failing_loader_runs_once_for_those_who_wait(cache: Cache) -> None:
    """Sixty-four threads hear of one failure; nobody runs the loader again for it."""
    calls = []
    release = threading.Event()

    @cache.cached(ttl=60)
    def load() -> int:
        calls.append(1)
        assert release.wait(10)
        raise ValueError("down")

    with ThreadPoolExecutor(64) as threads:
        results = [threads.submit(load) for _ in range(64)]
        while cache.stats().coalesced < 63:
            threading.Event().wait(0.001)
        release.set()
        for each in results:
            with pytest.raises(ValueError, match="down"):
                each.result()
    assert calls == [1]


async def test_a_failing_async_loader_runs_once(cache: Cache) -> None:
    """The same among tasks."""
    calls = []

    @cache.cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        raise ValueError("down")

    results = await asyncio.gather(*(load() for _ in range(100)), return_exceptions=True)
    assert all(isinstance(each, ValueError) for each in results)
    assert calls == [1]


def test_several_loops(cache: Cache) -> None:
    """Tasks of several loops in several threads share one load."""
    calls = []
    release = threading.Event()

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        await asyncio.to_thread(release.wait, 10)
        return x

    async def many() -> list[int]:
        return await asyncio.gather(*(load(7) for _ in range(10)))

    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(asyncio.run, many()) for _ in range(4)]
        while cache.stats().coalesced < 39:
            threading.Event().wait(0.001)
        release.set()
        assert [each.result() for each in results] == [[7] * 10] * 4
    assert calls == [7]


def test_two_runs_of_asyncio(cache: Cache) -> None:
    """The cache outlives a loop: what one ``asyncio.run`` loaded is a hit in the next."""
    calls = []

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        calls.append(x)
        return x

    assert asyncio.run(load(1)) == asyncio.run(load(1)) == 1
    assert calls == [1]


def test_a_loop_that_ends_hands_its_load_over(cache: Cache) -> None:
    """Who waits for a load of a loop that ends loads by itself."""
    started = threading.Event()
    calls = []

    @cache.cached(ttl=60)
    async def load() -> str:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            started.set()
            await asyncio.Event().wait()
        return "value"

    async def first() -> None:
        task = asyncio.create_task(load())
        while cache.stats().coalesced == 0:
            await asyncio.sleep(0.001)
        del task  # and the loop ends, with the load under way

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(asyncio.run, first())
        assert started.wait(10)
        assert threads.submit(asyncio.run, load()).result(10) == "value"
        one.result(10)
    assert len(calls) == 2


async def test_a_sync_function_inside_a_loop(cache: Cache) -> None:
    """A sync function called in a running loop blocks it for that call, whoever loads already."""
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    task = asyncio.create_task(cache.get_or_load("k", slow))
    await asyncio.sleep(0)
    assert cache.sync.get_or_load("k", lambda: "mine") == "mine"  # the loop's load cannot go on
    gate.set()
    assert await task in ("slow", "mine")


async def test_a_load_that_waits_for_itself(cache: Cache) -> None:
    """A loader that asks for its own key raises instead of hanging."""

    @cache.cached(ttl=60, key="f:{x}")
    async def f(x: int) -> int:
        return await f(x)

    with pytest.raises(LoadCycle, match="f:1 -> f:1|'f:1'.*f:1"):
        await f(1)


async def test_a_circle_of_loads(cache: Cache) -> None:
    """So do loaders that wait for each other, when they run at the same time too."""

    @cache.cached(ttl=60, key="a:{x}")
    async def a(x: int) -> int:
        await asyncio.sleep(0)
        return await b(x)

    @cache.cached(ttl=60, key="b:{x}")
    async def b(x: int) -> int:
        await asyncio.sleep(0)
        return await a(x)

    results = await asyncio.gather(a(1), b(1), return_exceptions=True)
    assert all(isinstance(each, LoadCycle) for each in results)


def test_a_sync_load_that_waits_for_itself(cache: Cache) -> None:
    """A recursive sync function with one key raises, one with falling keys works."""

    @cache.cached(ttl=60)
    def loop() -> int:
        return loop()

    @cache.cached(ttl=60)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    with pytest.raises(LoadCycle):
        loop()
    assert fib(30) == 832040
    assert fib.stats().loads == 31
