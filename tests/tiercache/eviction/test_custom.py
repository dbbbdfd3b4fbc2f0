from collections.abc import Callable, Iterator
from typing import Any

import cachetools
import pytest

from tests.tiercache.eviction.slots import drain, fill, hit, make_slot
from tiercache.entry import Slot
from tiercache.errors import PolicyError
from tiercache.eviction.custom import Custom
from tiercache.testing import FakeClock


class Left:
    """Remembers what an order dropped by itself."""

    def __init__(self) -> None:
        self.slots: list[tuple[str, str]] = []

    def __call__(self, slot: Slot, reason: str) -> None:
        self.slots.append((slot.key, reason))


@pytest.fixture
def left() -> Left:
    """What the order under test has dropped."""
    return Left()


def test_the_given_cache_decides(left: Left) -> None:
    """Victims come in the order of the given cache, hits included."""
    order = Custom(cachetools.LRUCache(100), left)
    slots = fill(order, "abc")
    hit(order, slots["a"])
    assert drain(order, 3) == "bca"
    assert left.slots == []


def test_a_first_in_first_out_cache_takes_no_notice_of_hits(left: Left) -> None:
    """A hit means to the given cache what it means to it."""
    order = Custom(cachetools.FIFOCache(100), left)
    slots = fill(order, "abc")
    hit(order, slots["a"])
    assert drain(order, 3) == "abc"


@pytest.mark.parametrize(
    "make",
    [
        cachetools.LRUCache,
        cachetools.LFUCache,
        cachetools.FIFOCache,
        cachetools.RRCache,
        lambda size: cachetools.TTLCache(size, 60),
    ],
    ids=["LRU", "LFU", "FIFO", "RR", "TTL"],
)
def test_what_the_cache_evicts_by_itself_is_reported(
    make: Callable[[int], Any], left: Left
) -> None:
    """A full cache makes room when it is assigned to; the slot that left is known at once."""
    cache = make(3)
    order = Custom(cache, left)
    fill(order, "abcd")
    assert [reason for _, reason in left.slots] == ["capacity"]
    assert {key for key, _ in left.slots} | set(cache) == set("abcd")


def test_what_a_timed_cache_expires_by_itself_is_reported(left: Left) -> None:
    """The cache's own time to live takes slots out at the next call."""
    clock = FakeClock()
    order = Custom(cachetools.TTLCache(10, 5, timer=clock.monotonic), left)
    fill(order, "ab")
    clock.advance(5)
    order.add(make_slot("c"))
    assert left.slots == [("a", "expired"), ("b", "expired")]
    clock.advance(5)
    order.settle()
    assert left.slots[2:] == [("c", "expired")]


def test_a_victim_is_something_that_expired_if_there_is_any(left: Left) -> None:
    """A timed cache whose slots have all expired still gives a victim, and reports the others."""
    clock = FakeClock()
    order = Custom(cachetools.TTLCache(10, 5, timer=clock.monotonic), left)
    fill(order, "abc")
    clock.advance(5)
    assert drain(order, 1) == "a"
    assert left.slots == [("b", "expired"), ("c", "expired")]


def test_no_live_slot_leaves_when_something_has_expired(left: Left) -> None:
    """A timed cache removes what has expired and then evicts one more; that one is spared."""
    clock = FakeClock()
    order = Custom(cachetools.TTLCache(10, 5, timer=clock.monotonic), left)
    fill(order, "a")
    clock.advance(4)
    fill(order, "b")
    clock.advance(1)
    assert drain(order, 1) == "a"
    assert left.slots == []
    assert drain(order, 1) == "b"


def test_a_victim_that_expires_while_it_is_chosen(left: Left) -> None:
    """Time may pass inside the cache: what expires between two looks at its clock is the victim."""
    clock = FakeClock()

    class Slow(cachetools.TTLCache[str, object]):
        def popitem(self) -> tuple[str, object]:
            clock.advance(5)
            return super().popitem()

    order = Custom(Slow(10, 5, timer=clock.monotonic), left)
    fill(order, "ab")
    assert drain(order, 1) == "a"
    assert left.slots == [("b", "expired")]


def test_discarding_what_has_expired_is_quiet(left: Left) -> None:
    """A timed cache raises for a key that has expired; nobody is interested."""
    clock = FakeClock()
    order = Custom(cachetools.TTLCache(10, 5, timer=clock.monotonic), left)
    slots = fill(order, "a")
    clock.advance(5)
    order.discard(slots["a"])
    assert left.slots == []


def test_a_value_too_large_for_the_cache_is_rejected(left: Left) -> None:
    """The cache's own measure applies to the user's value."""
    order = Custom(cachetools.LRUCache(10, getsizeof=len), left)
    order.add(make_slot("a", "x" * 10))
    order.add(make_slot("b", "x" * 11))
    assert left.slots == [("b", "rejected")]
    assert drain(order, 1) == "a"


def test_a_replacement_too_large_for_the_cache_takes_the_old_value_along(left: Left) -> None:
    """The cache keeps an old value when it refuses the new one; it must not stay."""
    cache: Any = cachetools.LRUCache(10, getsizeof=len)
    order = Custom(cache, left)
    old = make_slot("a", "x")
    order.add(old)
    order.replace(old, make_slot("a", "x" * 11))
    assert left.slots == [("a", "rejected")]
    assert len(cache) == 0


def test_making_room_for_a_replacement_may_drop_the_old_value(left: Left) -> None:
    """A cache that evicts the very key it is assigning to still holds the new slot."""
    cache: Any = cachetools.FIFOCache(10, getsizeof=len)
    order = Custom(cache, left)
    old, new = make_slot("a", "x" * 5), make_slot("a", "x" * 9)
    order.add(old)
    order.add(make_slot("b", "x" * 5))
    order.replace(old, new)
    assert dict(cache) == {"a": "x" * 9}
    assert order.victim() is new


def test_a_cache_that_expires_a_value_at_once_rejects_it(left: Left) -> None:
    """A time to use in the past means that the value is not kept."""
    order = Custom(cachetools.TLRUCache(10, lambda _key, _value, now: now - 1), left)
    order.add(make_slot("a"))
    assert left.slots == [("a", "rejected")]


class Fickle(cachetools.LRUCache[str, object]):
    """Drops its oldest key without calling ``popitem``, and keeps no key called "no"."""

    def __setitem__(self, key: str, value: object, *_: object) -> None:
        if len(self) == 2:
            del self[next(iter(self))]
        if key != "no":
            super().__setitem__(key, value)


def test_what_a_subclass_drops_in_its_own_way_is_noticed(left: Left) -> None:
    """Whatever is missing after a call is reported."""
    order = Custom(Fickle(10), left)
    fill(order, "abc")
    order.add(make_slot("no"))
    assert left.slots == [("a", "capacity"), ("no", "rejected"), ("b", "capacity")]


class Broken(cachetools.LRUCache[str, object]):
    """Fails for one key, after it has made room."""

    def __setitem__(self, key: str, value: object, *_: object) -> None:
        if key == "bad":
            self.popitem()
            raise RuntimeError("bad")
        super().__setitem__(key, value)


def test_an_error_in_a_subclass_leaves_order_and_reports_in_step(left: Left) -> None:
    """The error passes through; what was dropped before it is reported, and the key is not held."""
    order = Custom(Broken(10), left)
    fill(order, "ab")
    with pytest.raises(RuntimeError, match="bad"):
        order.add(make_slot("bad"))
    assert sorted(left.slots) == [("a", "capacity"), ("bad", "rejected")]
    assert drain(order, 1) == "b"


class Logging(cachetools.LRUCache[str, object]):
    """A subclass with a ``popitem`` of its own, as cachetools' documentation suggests."""

    log: list[str]

    def popitem(self) -> tuple[str, object]:
        key, value = super().popitem()
        self.log.append(key)
        return key, value


def test_a_subclass_keeps_its_own_popitem(left: Left) -> None:
    """Noticing evictions does not replace what the user's class does on them."""
    cache = Logging(2)
    cache.log = []
    order = Custom(cache, left)
    fill(order, "abc")
    assert drain(order, 1) == "b"
    assert cache.log == ["a", "b"]
    assert left.slots == [("a", "capacity")]


class Loading(cachetools.LRUCache[str, object]):
    """Makes up what is missing."""

    def __missing__(self, key: str) -> object:
        self[key] = "made up"
        return "made up"


def test_a_late_hit_makes_nothing_up(left: Left) -> None:
    """Replaying a hit on a slot that left does not wake the cache's ``__missing__``."""
    cache = Loading(10)
    order = Custom(cache, left)
    slots = fill(order, "ab")
    order.discard(slots["a"])
    hit(order, slots["a"])
    order.settle()
    assert set(cache) == {"b"}


def test_clear_empties_the_cache_without_reports(left: Left) -> None:
    """A cleared cache has evicted nothing."""
    cache: Any = cachetools.LRUCache(10)
    order = Custom(cache, left)
    hit(order, fill(order, "ab")["a"])
    order.clear()
    assert len(cache) == 0
    fill(order, "cd")
    assert drain(order, 2) == "cd"
    assert left.slots == []


def refused() -> Iterator[tuple[object, str]]:
    """What is no use as an order, and what the error says."""
    yield 7, "eviction=7: give 'default', 'lru', 'lfu', 'ttl' or an instance"
    yield cachetools.LRUCache, "or an instance of a cachetools cache"
    yield {}, "or an instance of a cachetools cache"
    full: Any = cachetools.LRUCache(10)
    full["a"] = 1
    yield full, "LRUCache: it holds 1 entries already"
    yield cachetools.LRUCache(0), "LRUCache: maxsize=0 holds nothing"


@pytest.mark.parametrize(("cache", "message"), [*refused()])
def test_refuses_what_cannot_order(cache: Any, message: str, left: Left) -> None:
    """An error says what was given and what is accepted."""
    with pytest.raises(PolicyError) as caught:
        Custom(cache, left)
    assert message in str(caught.value)


def test_refuses_a_cache_that_orders_another_tier(left: Left) -> None:
    """One instance cannot be the order of two tiers."""
    cache: Any = cachetools.LRUCache(10)
    Custom(cache, left)
    with pytest.raises(PolicyError, match="orders another tier already"):
        Custom(cache, left)


def test_knows_its_bound() -> None:
    """Only a cache that counts entries bounds their number."""
    by_count = Custom(cachetools.LRUCache(10), Left())
    by_size = Custom(cachetools.LRUCache(10, getsizeof=len), Left())
    unbounded = Custom(cachetools.LRUCache(float("inf")), Left())
    orders = (by_count, by_size, unbounded)
    assert [order.max_entries for order in orders] == [10, None, None]
    assert [order.bounded for order in orders] == [True, True, False]
