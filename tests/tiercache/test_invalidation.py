"""The order of an invalidation, and what becomes of one that did not reach everything."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.tiercache.remote import FakeRemote
from tiercache import Cache, MemoryTier
from tiercache.bus.local import LocalBus
from tiercache.errors import TierError
from tiercache.events import Event


class LoggedBus(LocalBus):
    """A bus that notes what it carries; ``away`` makes it fail, and it may ride on a tier."""

    def __init__(self, log: list[str], carrier: object = None) -> None:
        super().__init__()
        self.log = log
        self.away = False
        self.sent: list[Event] = []
        self._carrier = carrier

    def rides_on(self, tier: object) -> bool:
        """Whether this is the tier it was given."""
        return tier is self._carrier

    async def publish(self, events: Sequence[bytes]) -> None:
        """Send, if it is there."""
        self.log.append("bus")
        if self.away:
            raise TierError("down", tier="bus", operation="publish")
        self.sent += map(Event.decode, events)
        await super().publish(events)


class Stack:
    """A cache over two fake tiers and a bus, all of which note what they are asked in one log."""

    def __init__(self, make_cache: Callable[..., Cache], *, rides: bool) -> None:
        self.log: list[str] = []
        self.l2 = FakeRemote("redis", self.log)
        self.l3 = FakeRemote("database", self.log)
        self.bus = LoggedBus(self.log, self.l2 if rides else None)
        self.cache = make_cache(MemoryTier(), self.l2, self.l3, bus=self.bus)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that happens on the cache's own loop."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    @property
    def pending(self) -> bool:
        """Whether something is left to be invalidated."""
        return bool(self.cache._parts.recovery)


@pytest.fixture
async def stack(make_cache: Callable[..., Cache]) -> Stack:
    """A stack whose bus is a thing of its own."""
    stack = Stack(make_cache, rides=False)
    await stack.cache.open()
    stack.log.clear()
    return stack


@pytest.fixture
async def riding(make_cache: Callable[..., Cache]) -> Stack:
    """A stack whose bus rides on L2."""
    stack = Stack(make_cache, rides=True)
    await stack.cache.open()
    stack.log.clear()
    return stack


WAYS: dict[str, Callable[[Cache], Any]] = {
    "key": lambda cache: cache.invalidate("k"),
    "tag": lambda cache: cache.invalidate(tags=["t"]),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("way", WAYS)
async def test_bottom_first_and_own_memory_last(stack: Stack, way: str) -> None:
    """L3, L2, the bus, then L1: when L1 is emptied nothing older can come up any more."""
    cache, local = stack.cache, stack.cache._parts.local
    await cache.set("k", 1, tags=["t"])
    stack.log.clear()
    for name in ("void", "void_all"):
        original = getattr(local, name)

        def noted(*args: Any, original: Any = original) -> None:
            stack.log.append("memory")
            original(*args)

        setattr(local, name, noted)
    assert await WAYS[way](cache) is True
    did = "clear" if way == "clear" else "invalidate"
    assert stack.log == [f"database {did}", f"redis {did}", "bus", "memory"]
    assert await cache.get("k") is None


async def test_the_event_rides_on_a_tier(riding: Stack) -> None:
    """Where the bus rides on a tier, that tier sends the event together with its deletion."""
    riding.cache.on("x", keys=["k"])
    await riding.cache.invalidate("k", "k", tags=["t"])
    await riding.cache.emit("x", n=1)
    assert "bus" not in riding.log
    first, second = map(Event.decode, riding.l2.events)
    assert (first.keys, first.tags, first.complete) == (("k",), ("t",), True)
    assert (second.keys, second.name, dict(second.payload)) == (("k",), "x", {"n": 1})
    assert await riding.cache.emit("without rules") is True
    assert riding.log[-1] == "bus"


async def test_an_incomplete_pass(stack: Stack) -> None:
    """It returns False, says so to the others, is gone round, and is finished by itself."""
    cache = stack.cache
    await cache.set("k", "old", tags=["t"])
    await cache.set("other", 1)
    stack.l3.away = True
    assert await cache.invalidate("k") is False
    assert stack.bus.sent[-1].complete is False
    assert stack.pending
    assert await cache.get("k") is None
    assert await cache.get_or_load("k", lambda: "new", tags=["t"]) == "new"
    assert "k" in stack.l3.values, "it could not be reached"
    stack.l3.away = False
    await stack.until(lambda: not stack.pending)
    assert "k" not in stack.l3.values
    assert stack.bus.sent[-1].complete is True
    assert await cache.get("other") == 1


async def test_one_that_a_tier_refused(stack: Stack) -> None:
    """The same for a tier that answers, but with a refusal: its circuit stays closed."""
    await stack.cache.set("k", "old")
    stack.l2.refuses = {"invalidate"}
    assert await stack.cache.invalidate("k") is False
    stack.l2.refuses = set()
    await stack.until(lambda: not stack.pending)
    assert stack.l2.values == {}


async def test_one_that_the_bus_did_not_carry(stack: Stack) -> None:
    """The same for the bus: it is told again."""
    stack.bus.away = True
    assert await stack.cache.invalidate("k") is False
    assert stack.pending
    sent = len(stack.bus.sent)
    stack.bus.away = False
    await stack.until(lambda: not stack.pending)
    assert stack.bus.sent[sent].keys == ("k",)


async def test_a_set_that_did_not_reach_everything(stack: Stack) -> None:
    """What another tier still holds of a key that was set is never read again."""
    cache = stack.cache
    await cache.set("k", "old")
    stack.l3.away = True
    await cache.set("k", "new")
    assert await cache.get("k") == "new"
    cache._parts.local.void_all()
    assert await cache.get("k") is None
    stack.l3.away = False
    await stack.until(lambda: not stack.pending)
    assert "k" not in stack.l3.values


async def test_a_refresh_that_was_not_told(stack: Stack) -> None:
    """A forced refresh whose event was not sent is made good by an invalidation."""

    @stack.cache.cached(ttl=60, key="k")
    async def load() -> str:
        return "value"

    await load()
    stack.bus.away = True
    assert await load.refresh() == "value"
    assert stack.pending
    stack.bus.away = False
    await stack.until(lambda: not stack.pending)
    assert stack.bus.sent[-1].keys == ("k",)


async def test_events_of_others(make_cache: Callable[..., Cache]) -> None:
    """An incomplete event makes its hearers go round the tiers, until each has reached them."""
    log: list[str] = []
    shared = FakeRemote("redis", log)
    bus = LoggedBus(log)
    here, there = (make_cache(MemoryTier(), shared, bus=bus) for _ in range(2))
    await here.open()
    await there.open()
    await here.set("k", "old")
    assert await there.get("k") == "old"
    shared.refuses = {"invalidate"}
    assert await here.invalidate("k") is False
    recovery = there._parts.recovery
    async with asyncio.timeout(10):
        while not recovery:
            await asyncio.sleep(0.001)
    assert await there.get("k") is None
    assert await there.get_or_load("k", lambda: "new") == "new"
    shared.refuses = set()
    async with asyncio.timeout(10):
        while recovery:
            await asyncio.sleep(0.001)
    assert shared.values.keys() - {"k"} == set()


async def test_figures(stack: Stack) -> None:
    """An invalidation of anything counts once; an event that invalidates nothing does not."""
    before = stack.cache.stats().invalidations
    await stack.cache.invalidate("a", "b", tags=["t"])
    await stack.cache.clear()
    await stack.cache.emit("x")
    assert stack.cache.stats().invalidations == before + 2


async def test_nothing_to_do(stack: Stack) -> None:
    """To invalidate or to store nothing asks no tier and tells nobody."""
    assert await stack.cache.invalidate() is True
    await stack.cache.set_many({})
    assert await stack.cache.get_many([]) == {}
    assert stack.log == []


async def test_a_caller_that_is_cancelled(stack: Stack) -> None:
    """An invalidation goes to its end when its caller is cancelled half-way."""
    cache = stack.cache
    for steps in range(6):
        await cache.set("k", "old")
        task = asyncio.create_task(cache.invalidate("k"))
        for _ in range(steps):
            await asyncio.sleep(0)
        began = any("invalidate" in each for each in stack.log)
        task.cancel()
        await asyncio.wait([task])
        for _ in range(50):
            await asyncio.sleep(0)
        if began:
            assert await cache.get("k") is None
            assert stack.l2.values == stack.l3.values == {}
        stack.log.clear()


async def test_a_caller_that_is_cancelled_between_two_tiers(stack: Stack) -> None:
    """Cancelled while L3 is being asked, it still reaches L2, the bus and L1."""
    cache = stack.cache
    await cache.set("k", "old")
    asked, go_on = asyncio.Event(), asyncio.Event()
    original = stack.l3.invalidate

    async def slow(*args: Any) -> None:
        asked.set()
        await go_on.wait()
        await original(*args)

    stack.l3.invalidate = slow  # type: ignore[method-assign]
    task = asyncio.create_task(cache.invalidate("k"))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    go_on.set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert stack.l2.values == stack.l3.values == {}
    assert stack.bus.sent[-1].keys == ("k",)
    assert await cache.get("k") is None
