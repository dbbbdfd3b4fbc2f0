"""Random walks through a memory tier, beside a model that remembers every slot there ever was."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import cachetools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.tiercache.eviction.slots import hit, make_slot
from tiercache.entry import FOREVER, Slot
from tiercache.eviction.expiry import RESOLUTION
from tiercache.testing import FakeClock
from tiercache.tiers.memory import MemoryTier

KEYS = st.sampled_from("abcdefghijklmnop")
SIZES = st.sampled_from([0, 100, 1_000, 5_000, 20_000])
LIVES = st.sampled_from([0.0, 0.1, 0.4, 1.0, 3.0, 10.0, 1_000.0, FOREVER])
STEPS = st.sampled_from([0.0, 0.05, 0.3, 0.5, 2.0, 60.0])

ORDERS: dict[str, Callable[[FakeClock], Any]] = {
    "default": lambda _: "default",
    "lru": lambda _: "lru",
    "lfu": lambda _: "lfu",
    "ttl": lambda _: "ttl",
    "LRUCache": lambda _: cachetools.LRUCache(5),
    "LFUCache by size": lambda _: cachetools.LFUCache(8_000, getsizeof=len),
    "FIFOCache by size": lambda _: cachetools.FIFOCache(8_000, getsizeof=len),
    "RRCache": lambda _: cachetools.RRCache(6),
    "TTLCache": lambda clock: cachetools.TTLCache(6, 7.0, timer=clock.monotonic),
    "TLRUCache": lambda clock: cachetools.TLRUCache(
        9_000, lambda _key, value, now: now + len(value) / 1_000, clock.monotonic, len
    ),
}


class MemoryTierWalk(RuleBasedStateMachine):
    """Stores, hits, discards, sweeps and lets time pass, in any order."""

    @initialize(
        order=st.sampled_from(sorted(ORDERS)),
        max_entries=st.sampled_from([None, 1, 2, 5]),
        max_bytes=st.sampled_from([None, 3_000, 30_000]),
    )
    def begin(self, order: str, max_entries: int | None, max_bytes: int | None) -> None:
        self.clock = FakeClock(monotonic=-3.2)
        self.tier = MemoryTier(
            max_entries=max_entries, max_bytes=max_bytes, eviction=ORDERS[order](self.clock)
        )
        self.evicted: Counter[str] = Counter()
        self.tier.bind(self.clock, self.count)
        self.latest: dict[str, Slot] = {}  # the last slot stored under each key and not taken out
        self.slots: list[Slot] = []
        self.gone = 0  # slots that left, but not by eviction
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.given = "Cache" in order

    def count(self, reason: str) -> None:
        self.evicted[reason] += 1

    @rule(key=KEYS, size=SIZES, life=LIVES)
    def store(self, key: str, size: int, life: float) -> None:
        slot = make_slot(key, "x" * size, until=self.clock.monotonic() + life)
        old = self.tier.lookup(key)
        before = self.evicted.copy()
        held = self.tier.store(slot)
        self.slots.append(slot)
        self.latest[key] = slot
        assert held == (self.tier.lookup(key) is slot)
        new = self.evicted - before
        assert held or new["rejected"] == 1
        # The old slot was replaced, unless a given cache dropped it by itself before that.
        replaced = self.unaccounted()
        assert replaced == (old is not None) or (self.given and replaced == 0)
        self.gone += replaced
        if new["capacity"] and not self.given:
            over = self.clock.monotonic() // RESOLUTION * RESOLUTION
            assert all(other.stale_until >= over for other in self.held())

    @rule(key=KEYS, times=st.integers(1, 5))
    def hit(self, key: str, times: int) -> None:
        slot = self.tier.lookup(key)
        for _ in range(times):
            if slot is not None:
                hit(self.tier, slot)

    @rule(key=KEYS)
    def hit_late(self, key: str) -> None:
        slot = self.latest.get(key)
        if slot is not None:
            hit(self.tier, slot)

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        slot = self.tier.lookup(key)
        assert self.tier.discard(key) == (slot is not None)
        assert self.tier.lookup(key) is None
        self.gone += slot is not None

    @rule(limit=st.integers(1, 5))
    def sweep(self, limit: int) -> None:
        before, count = self.evicted.copy(), self.tier.entries[0]
        swept = self.tier.sweep(limit)
        assert swept == count - self.tier.entries[0] == (self.evicted - before).total()
        if swept < limit:
            assert all(
                slot.stale_until >= self.clock.monotonic() - RESOLUTION for slot in self.held()
            )

    @rule(seconds=STEPS)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.slots) > 10)
    @rule()
    def clear(self) -> None:
        count = self.tier.entries[0]
        assert self.tier.clear() == count
        self.gone += count
        assert not self.held()

    @invariant()
    def bounds_hold(self) -> None:
        count, limit = self.tier.entries
        assert count == len(self.held())
        assert limit is None or count <= limit
        assert self.max_entries is None or count <= self.max_entries
        if self.tier.memory is not None:
            used, most = self.tier.memory
            assert used == sum(slot.cost for slot in self.held()) <= most

    @invariant()
    def only_the_latest_is_found(self) -> None:
        held = self.held()
        assert all(self.latest[slot.key] is slot for slot in held)
        for slot in self.slots:
            assert (slot in held) == (slot.serve_until != -FOREVER)
            if slot not in held:
                assert slot.queue is slot.prev is slot.next is None
                assert slot.bucket_prev is slot.bucket_next is None

    @invariant()
    def every_slot_is_accounted_for(self) -> None:
        assert self.unaccounted() == 0

    def unaccounted(self) -> int:
        """How many slots left without any reason that is known so far."""
        return len(self.slots) - len(self.held()) - self.gone - self.evicted.total()

    def held(self) -> list[Slot]:
        """The slots that can be found."""
        found = map(self.tier.lookup, "abcdefghijklmnop")
        return [slot for slot in found if slot is not None]

    def teardown(self) -> None:
        """Table, eviction order and expiry buckets hold the same slots."""
        if not hasattr(self, "tier"):
            return
        held = self.held()
        finite = [slot for slot in held if slot.stale_until < FOREVER]
        assert set(self.tier._expiry.due(1e9, 1_000)) == set(finite)
        left: list[Slot] = []
        while len(left) < self.tier.entries[0]:
            left.append(self.tier._order.victim())
        # A timed cache may have dropped some of its own accord while it was asked for victims.
        assert len(left) == len(set(left))
        assert set(left) == set(self.held()) <= set(held)


MemoryTierWalk.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestMemoryTierWalk = MemoryTierWalk.TestCase


@pytest.mark.parametrize("eviction", ["lru", "ttl", "LRUCache"])
@given(
    size=st.integers(1, 5),
    keys=st.lists(st.tuples(KEYS, st.sampled_from(["get", "get", "get", "set", "discard"]))),
)
def test_least_recently_used_is_exact(
    eviction: str, size: int, keys: list[tuple[str, str]]
) -> None:
    """The tier holds what a plain list of recent keys would hold."""
    options: Any = cachetools.LRUCache(100) if eviction == "LRUCache" else eviction
    tier = MemoryTier(max_entries=size, eviction=options)
    model: OrderedDict[str, Slot] = OrderedDict()
    for key, act in keys:
        slot = tier.lookup(key)
        assert slot is model.get(key)
        if act == "discard":
            tier.discard(key)
            model.pop(key, None)
            continue
        if act == "get" and slot is not None:
            assert tier.touch is not None
            tier.touch(slot)
        else:
            model[key] = make_slot(key)
            tier.store(model[key])
        model.move_to_end(key)
        if len(model) > size:
            model.popitem(last=False)
