"""What the bus does to a cache: events, gaps, a bus that goes and comes back."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.tiercache.remote import FakeRemote
from tiercache import Cache, MemoryTier
from tiercache.bus.base import Listener
from tiercache.events import Event
from tiercache.testing import FakeClock


class Wire:
    """A bus whose reading end the test holds in its hand."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.listening = threading.Event()
        self.sent: list[Event] = []
        self.proven = float("inf")

    def rides_on(self, tier: object) -> bool:
        """False: on none."""
        return False

    async def publish(self, events: Sequence[bytes]) -> None:
        """Keep what is sent."""
        self.sent += map(Event.decode, events)

    async def run(self, listener: Listener) -> None:
        """Hand out the listener, and be connected from the start."""
        self.listener = listener
        listener.connected(True)
        self.listening.set()
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Do nothing."""


class Ends:
    """A cache, and the two ends of its bus."""

    def __init__(self, cache: Cache, wire: Wire) -> None:
        self.cache = cache
        self.wire = wire
        assert wire.listener is not None
        self.listener = wire.listener

    def hear(self, **event: Any) -> None:
        """Let the cache hear an event of another process."""
        self.listener.heard(Event(**({"source": "another"} | event)))


@pytest.fixture
def ends(make_cache: Callable[..., Cache], clock: FakeClock) -> Ends:
    """A cache in memory on a bus."""
    wire = Wire()
    cache = make_cache(bus=wire, clock=clock)
    cache.sync.set_many({"a": 1, "b": 2}, tags=["t"])
    cache.sync.set("c", 3)
    assert wire.listening.wait(10)
    return Ends(cache, wire)


def held(ends: Ends) -> set[str]:
    """Return the keys that L1 serves."""
    return set(ends.cache.sync.get_many(["a", "b", "c"]))


@pytest.mark.parametrize(
    ("event", "left"),
    [
        ({"keys": ("a", "x")}, {"b", "c"}),
        ({"tags": ("t",)}, {"c"}),
        ({"everything": True}, set()),
        ({"name": "x"}, {"a", "b", "c"}),
    ],
    ids=["keys", "tags", "everything", "nothing"],
)
def test_events_are_applied(ends: Ends, event: dict[str, Any], left: set[str]) -> None:
    """What another process has invalidated leaves L1."""
    before = ends.cache.stats().invalidations
    ends.hear(**event)
    assert held(ends) == left
    assert ends.cache.stats().invalidations == before + (left != {"a", "b", "c"})


def test_own_echoes_are_skipped(ends: Ends) -> None:
    """What this cache has sent itself is not applied a second time."""
    ends.cache.sync.invalidate("a")
    echo = ends.wire.sent[-1]
    ends.cache.sync.set("a", "new")
    ends.listener.heard(echo)
    assert ends.cache.sync.get("a") == "new"


def test_a_gap_clears(ends: Ends) -> None:
    """When events may have been missed, nothing that L1 holds is served."""
    ends.listener.gap("for the test")
    assert held(ends) == set()


async def test_a_gap_voids_loads(ends: Ends) -> None:
    """A load that began before the gap fills nothing."""
    go_on = asyncio.Event()

    async def load() -> str:
        await go_on.wait()
        return "old"

    loading = asyncio.create_task(ends.cache.get_or_load("k", load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ends.listener.gap("for the test")
    go_on.set()
    assert await loading == "old"
    assert await ends.cache.get("k") is None


@pytest.mark.parametrize("event", [{"keys": ("k",)}, {"tags": ("t",)}, {"everything": True}])
async def test_an_event_voids_loads(ends: Ends, event: dict[str, Any]) -> None:
    """So does one that began before the event that concerns it."""
    go_on = asyncio.Event()

    async def load() -> str:
        await go_on.wait()
        return "old"

    loading = asyncio.create_task(ends.cache.get_or_load("k", load, tags=["t"]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ends.hear(**event)
    go_on.set()
    assert await loading == "old"
    assert await ends.cache.get("k") is None


def test_without_the_bus_memory_is_not_trusted(ends: Ends, clock: FakeClock) -> None:
    """While the bus is away, L1 serves what this process has loaded within ``bus_timeout``."""
    calls = []

    @ends.cache.cached(ttl=600)
    def load() -> int:
        calls.append(1)
        return len(calls)

    assert load() == load() == 1
    ends.listener.connected(False)
    clock.advance(2.9)
    assert load() == load() == 1
    clock.advance(0.2)
    assert load() == load() == 2, "one load per bus_timeout"
    clock.advance(2.9)
    assert load() == 2
    ends.listener.connected(True)
    ends.listener.gap("it was away")
    assert load() == load() == 3


def test_the_bus_vouches_for_a_time(ends: Ends, clock: FakeClock) -> None:
    """With a bus that is connected an entry is served for as long as its ttl."""
    calls = []

    @ends.cache.cached(ttl=600)
    def load() -> int:
        calls.append(1)
        return 1

    load()
    for _ in range(50):
        clock.advance(10)
        ends.listener.connected(True)
        load()
    assert calls == [1]


async def test_what_was_missed_is_replayed(make_cache: Callable[..., Cache]) -> None:
    """When a tier answers again, what it missed is finished there."""
    shared, wire = FakeRemote("redis"), Wire()
    cache = make_cache(MemoryTier(), shared, bus=wire)
    await cache.open()
    await cache.set("k", "old")
    shared.away = True
    assert await cache.invalidate("k") is False
    assert "k" in shared.values
    shared.away = False
    async with asyncio.timeout(10):
        while "k" in shared.values:
            await asyncio.sleep(0.001)
    async with asyncio.timeout(10):
        while not (wire.sent[-1].complete and wire.sent[-1].keys == ("k",)):
            await asyncio.sleep(0.001)


def test_the_sweep(make_cache: Callable[..., Cache], clock: FakeClock) -> None:
    """Entries whose time is over leave L1 by themselves."""
    cache = make_cache(clock=clock)
    cache.sync.set_many({str(each): each for each in range(2_500)}, ttl=1)
    clock.advance(120)
    deadline = threading.Event()
    for _ in range(2_000):
        if cache.stats().evictions == 2_500:
            break
        deadline.wait(0.005)
    assert cache.stats().evictions == 2_500
