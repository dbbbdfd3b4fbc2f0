"""The short way of a miss keeps what the slow path keeps, in threads and in tasks."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tiercache import MISSING, Cache, LoadCycle
from tiercache.loading import Direct
from tiercache.testing import FakeClock


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the misses that went the short way."""
    keys: list[str] = []
    land = Direct._land

    def noted(self: Direct, flight, *rest) -> None:  # type: ignore[no-untyped-def]
        keys.append(flight.key)
        land(self, flight, *rest)

    monkeypatch.setattr(Direct, "_land", noted)
    return keys


@pytest.mark.parametrize("by", ["key", "tag"])
def test_an_invalidation_meanwhile_refuses_the_fill(
    cache: Cache, taken: list[str], by: str
) -> None:
    """What was invalidated while it was loaded is returned, and loaded anew next time."""
    calls = []

    @cache.cached(ttl=60, key="k:{x}", tags=["t:{x}"])
    def load(x: int) -> int:
        calls.append(x)
        if len(calls) == 1:
            cache.sync.invalidate("k:1") if by == "key" else cache.sync.invalidate(tags=["t:1"])
        return len(calls)

    assert [load(1), load(1), load(1)] == [1, 2, 2]
    assert taken == ["k:1", "k:1"]


@pytest.mark.parametrize("by", ["key", "tag"])
async def test_an_invalidation_meanwhile_refuses_the_fill_of_a_task(
    cache: Cache, taken: list[str], by: str
) -> None:
    """The same for an async function, and who asks after the invalidation does not join."""
    gate = asyncio.Event()
    calls = []

    @cache.cached(ttl=60, key="k:{x}", tags=["t:{x}"])
    async def load(x: int) -> int:
        calls.append(x)
        call = len(calls)
        await gate.wait()
        return call

    first = asyncio.create_task(load(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await (cache.invalidate("k:1") if by == "key" else cache.invalidate(tags=["t:1"]))
    second = asyncio.create_task(load(1))
    await asyncio.sleep(0)
    gate.set()
    assert [await first, await second, await load(1)] == [1, 2, 2]
    assert "k:1" in taken


def test_a_failure_is_counted_and_not_kept(cache: Cache) -> None:
    """A loader's error is raised as it is, and the next call loads again."""

    @cache.cached(ttl=60)
    def load(x: int) -> float:
        return 1 / x

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load(0)
    assert load(1) == 1.0
    assert (load.stats().loads, load.stats().load_errors, load.stats().misses) == (3, 2, 1)


async def test_a_failure_of_a_task_is_counted_and_not_kept(cache: Cache) -> None:
    """The same for an async function."""

    @cache.cached(ttl=60)
    async def load(x: int) -> float:
        return 1 / x

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await load(0)
    assert await load(1) == 1.0
    stats = load.stats()
    assert (stats.loads, stats.load_errors, stats.misses) == (3, 2, 1)


def test_an_interrupted_load_is_begun_again(cache: Cache) -> None:
    """Ctrl-C in a loader leaves nothing behind that the next call would wait for."""
    calls = []

    @cache.cached(ttl=60)
    def load() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return 7

    with pytest.raises(KeyboardInterrupt):
        load()
    assert load() == 7


def test_what_is_not_to_be_kept(cache: Cache, taken: list[str]) -> None:
    """A value that `cache_if` says no to, and `MISSING`, are returned and loaded anew."""
    answers: list[object] = [1, 2, MISSING, 3]

    @cache.cached(ttl=60, cache_if=lambda value: value == 3)
    def load() -> object:
        return answers.pop(0)

    assert [load() for _ in range(5)] == [1, 2, MISSING, 3, 3]
    assert len(taken) == 4


def test_times(cache: Cache, clock: FakeClock, taken: list[str]) -> None:
    """Jitter shortens the ttl, and what is past its ttl stands in for a loader that fails."""
    fail = []

    @cache.cached(ttl=100, jitter=0.5, stale_for=1000)
    def load(x: int) -> int:
        if fail:
            raise ValueError
        return x

    for x in range(200):
        load(x)
    clock.advance(75)
    assert 40 < sum(load.peek(x) is MISSING for x in range(200)) < 160
    clock.advance(26)
    assert all(load.peek(x) is MISSING for x in range(200))
    fail.append(True)
    assert load(5) == 5
    assert load.stats().stale == 1
    assert len(taken) == 200


def test_a_function_that_returns_an_awaitable(cache: Cache, taken: list[str]) -> None:
    """The result of what a plain function returns is awaited and kept."""

    async def answer() -> int:
        return 5

    @cache.cached(ttl=60)
    def load() -> Awaitable[int]:
        return answer()

    found: list[object] = [load(), load()]
    assert found == [5, 5]
    assert len(taken) == 1


def test_a_circle_of_sync_loads(cache: Cache) -> None:
    """Functions that call each other in a circle raise in a thread as well."""

    @cache.cached(ttl=60)
    def a(x: int) -> object:
        return b(x)

    @cache.cached(ttl=60)
    def b(x: int) -> object:
        return a(x)

    with pytest.raises(LoadCycle):
        a(1)


def test_a_circle_of_sync_loads_on_the_slow_path(cache: Cache) -> None:
    """So do loaders of the cache's own method."""

    def a() -> object:
        return cache.sync.get_or_load("b", b)

    def b() -> object:
        return cache.sync.get_or_load("a", a)

    with pytest.raises(LoadCycle):
        a()


async def test_a_provider_that_is_set_later(
    make_cache: Callable[..., Cache], taken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Misses make no spans while there is no SDK, and do from the moment there is one."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    cache = make_cache(name="late")

    @cache.cached(ttl=60)
    async def load(x: int) -> int:
        return x

    await load(1)
    assert len(taken) == 1
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    await load(2)
    assert len(taken) == 1
    assert [span.name for span in exporter.get_finished_spans()] == [
        "load late",
        "get_or_load late",
    ]
