import gc
import subprocess
import sys
import threading
import weakref
from collections import Counter
from typing import Any

import cachetools
import pytest

from tests.tiercache.eviction.slots import make_slot
from tiercache.entry import FOREVER, Slot
from tiercache.errors import PolicyError
from tiercache.eviction.cost import OVERHEAD
from tiercache.testing import FakeClock
from tiercache.tiers.base import LocalTier
from tiercache.tiers.memory import DEFAULT_ENTRIES, MemoryTier

NAMES = ("default", "lru", "lfu", "ttl")


class Bound:
    """A tier of one cache, with the clock it looks at and the evictions it reported."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.evicted: Counter[str] = Counter()
        self.tier = MemoryTier(**options)
        self.tier.bind(self.clock, self.count)

    def count(self, reason: str) -> None:
        self.evicted[reason] += 1

    def store(self, key: str, value: object = None, *, ttl: float = FOREVER) -> Slot:
        slot = make_slot(key, value, until=self.clock.monotonic() + ttl)
        self.tier.store(slot)
        return slot

    @property
    def keys(self) -> str:
        return "".join(key for key in map(chr, range(128)) if self.tier.lookup(key))


def retired(slot: Slot) -> bool:
    """Whether nobody who still holds the slot will serve it."""
    return slot.serve_until == slot.expires == slot.stale_until == -FOREVER


def test_is_a_local_tier() -> None:
    """The tier fits the protocol that the engine uses."""
    tier: LocalTier = MemoryTier()
    assert tier.lookup("a") is None


@pytest.mark.parametrize("eviction", NAMES)
def test_holds_what_is_stored_until_it_is_discarded(eviction: str) -> None:
    """A slot is found under its key, and retired when it is taken out."""
    bound = Bound(eviction=eviction)
    slot = bound.store("a", None)
    assert bound.tier.lookup("a") is slot
    assert bound.tier.discard("a")
    assert bound.tier.lookup("a") is None
    assert retired(slot)
    assert not bound.tier.discard("a")
    assert not bound.evicted


@pytest.mark.parametrize("eviction", NAMES)
def test_replacing_is_not_an_eviction(eviction: str) -> None:
    """The old slot is retired, and neither counted nor held beside the new one."""
    bound = Bound(max_entries=2, eviction=eviction)
    bound.store("b")
    old, new = bound.store("a", 1), bound.store("a", 2)
    assert bound.tier.lookup("a") is new
    assert retired(old)
    assert not retired(new)
    assert bound.tier.entries == (2, 2)
    assert not bound.evicted


@pytest.mark.parametrize("eviction", [*NAMES, "custom"])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_never_holds_more_than_max_entries(eviction: str, size: int) -> None:
    """At the bound every new slot retires another one, and itself stays."""
    options: Any = cachetools.LRUCache(100) if eviction == "custom" else eviction
    bound = Bound(max_entries=size, eviction=options)
    slots = []
    for number in range(50):
        slots.append(bound.store(str(number)))
        assert bound.tier.lookup(str(number)) is slots[-1]
    assert bound.tier.entries == (size, size)
    assert bound.evicted == {"capacity": 50 - size}
    assert sum(map(retired, slots)) == 50 - size


@pytest.mark.parametrize("eviction", NAMES)
def test_never_holds_more_than_max_bytes(eviction: str) -> None:
    """Bytes are bounded whatever the number of entries; large values push out several."""
    bound = Bound(max_bytes=100_000, eviction=eviction)
    for number in range(200):
        bound.store(str(number), "x" * (number % 10) * 1_000)
        used, limit = bound.tier.memory or (0, 0)
        assert 0 < used <= limit == 100_000
    assert bound.evicted["capacity"] == 200 - bound.tier.entries[0]
    bound.store("large", "x" * 98_000)
    assert bound.tier.entries == (1, None)


def test_bytes_are_given_back() -> None:
    """What left for whatever reason takes no bytes any more."""
    bound = Bound(max_bytes=100_000)
    bound.store("a", "x" * 10_000)
    bound.store("a", "x" * 20_000)
    used, _ = bound.tier.memory or (0, 0)
    assert 20_000 < used < 20_000 + 2 * OVERHEAD
    bound.store("b", ttl=1)
    bound.tier.discard("a")
    bound.clock.advance(1)
    bound.tier.sweep(10)
    assert bound.tier.memory == (0, 100_000)


def test_both_bounds_hold() -> None:
    """Whichever bound is reached first evicts."""
    bound = Bound(max_entries=2, max_bytes=100_000, eviction="lru")
    for name in "abc":
        bound.store(name)
    assert bound.keys == "bc"
    bound.store("d", "x" * 99_000)
    assert bound.keys == "d"
    assert bound.tier.entries == (1, 2)


def test_a_value_larger_than_the_tier_is_rejected() -> None:
    """It is not held, nothing else leaves for it, and the key's old value does not stay."""
    bound = Bound(max_bytes=10_000)
    bound.store("a")
    old = bound.store("b")
    large = make_slot("b", "x" * 10_000)
    assert not bound.tier.store(large)
    assert bound.keys == "a"
    assert retired(old)
    assert retired(large)
    assert bound.evicted == {"rejected": 1}


def test_a_value_that_grows_pushes_out_others() -> None:
    """A replacement that needs more room gets it, from others than itself."""
    bound = Bound(max_bytes=10_000, eviction="lru")
    bound.store("a", "x" * 1_000)
    bound.store("b", "x" * 5_000)
    bound.store("a", "x" * 6_000)
    assert bound.keys == "a"
    assert bound.evicted == {"capacity": 1}


def test_a_replacement_of_the_same_size_pushes_out_nothing() -> None:
    """The old value's bytes are free for the new one, also when the tier is full."""
    bound = Bound(max_bytes=10_000, eviction="lru")
    bound.store("a", "x" * 4_000)
    bound.store("b", "x" * 4_000)
    bound.store("b", "y" * 4_000)
    assert bound.keys == "ab"


def test_a_large_value_takes_the_place_of_many_expired_ones() -> None:
    """As many expired slots leave as are needed before a live one does."""
    bound = Bound(max_bytes=50_000, eviction="lru")
    bound.store("a")
    for number in range(40):
        bound.store(str(number), ttl=5)
    bound.clock.advance(6)
    bound.store("b", "x" * 48_000)
    assert bound.keys == "ab"
    assert bound.evicted["capacity"] == 0


def test_a_value_that_grows_out_of_its_own_old_place_is_not_evicted() -> None:
    """If the old value of the key is the victim, that is a replacement and counts as nothing."""
    bound = Bound(max_bytes=10_000, eviction="lru")
    old = bound.store("a", "x" * 5_000)
    bound.store("b", "x" * 1_000)
    new = bound.store("a", "x" * 7_000)
    assert bound.keys == "ab"
    assert bound.tier.lookup("a") is new
    assert retired(old)
    assert not bound.evicted


def test_bytes_are_measured_only_when_they_are_bounded() -> None:
    """Without ``max_bytes`` no value is looked into."""
    asked = []

    class Value:
        def __sizeof__(self) -> int:
            asked.append(1)
            return 50

    Bound().store("a", Value())
    assert not asked
    Bound(max_bytes=10_000).store("a", Value())
    assert asked


@pytest.mark.parametrize("eviction", [*NAMES, "custom"])
def test_an_expired_entry_never_costs_a_live_one_its_place(eviction: str) -> None:
    """Room is made by what is over, wherever it stands in the order."""
    options: Any = cachetools.LRUCache(4) if eviction == "custom" else eviction
    bound = Bound(max_entries=4, eviction=options)
    for name, ttl in [("a", 100.0), ("b", 10.0), ("c", FOREVER), ("d", 10.01)]:
        bound.store(name, ttl=ttl)
        for _ in range(3):
            slot = bound.tier.lookup(name)
            assert slot is not None
            slot.visited += 1
            if bound.tier.touch is not None:
                bound.tier.touch(slot)
    bound.clock.advance(10.005)
    bound.store("e")
    assert bound.keys == "acde"
    bound.clock.advance(0.01)
    bound.store("f")
    assert bound.keys == "acef"
    assert bound.evicted == {"expired": 2}


def test_stores_sweep_on_their_own() -> None:
    """Expired slots leave with the next stores although nothing is full and nobody sweeps."""
    bound = Bound()
    expired = [bound.store(str(number), ttl=5) for number in range(40)]
    bound.clock.advance(6)
    for number in range(10):
        bound.store(f"new:{number}")
    assert bound.tier.entries == (10, DEFAULT_ENTRIES)
    assert all(map(retired, expired))


def test_sweep_takes_at_most_its_limit() -> None:
    """A million entries that expire at once are swept in batches."""
    bound = Bound()
    for number in range(25):
        bound.store(str(number), ttl=5)
    bound.store("live", ttl=60)
    assert bound.tier.sweep(10) == 0
    bound.clock.advance(6)
    assert [bound.tier.sweep(10) for _ in range(4)] == [10, 10, 5, 0]
    assert bound.tier.entries[0] == 1
    assert bound.evicted == {"expired": 25}


def test_stale_values_are_kept_as_long_as_they_may_be_served() -> None:
    """An entry past its ttl is not over before its ``stale_until``."""
    bound = Bound()
    now = bound.clock.monotonic()
    slot = Slot("a", 1, created=now, refresh_at=now + 4, expires=now + 5, stale_until=now + 60)
    bound.tier.store(slot)
    bound.clock.advance(59)
    assert bound.tier.sweep(10) == 0
    assert bound.tier.lookup("a") is slot
    bound.clock.advance(1)
    assert bound.tier.sweep(10) == 1


def test_overwriting_or_invalidating_what_has_expired_is_not_an_eviction() -> None:
    """An expired slot that is replaced, discarded or cleared is not counted as expired."""
    bound = Bound()
    for name in "abc":
        bound.store(name, ttl=5)
    bound.clock.advance(6)
    bound.tier.discard("a")
    bound.store("b")
    assert bound.evicted == {"expired": 1}  # c, swept by the store
    bound.store("d", ttl=5)
    bound.clock.advance(6)
    bound.tier.clear()
    assert bound.tier.sweep(10) == 0
    assert bound.evicted == {"expired": 1}


@pytest.mark.parametrize("eviction", [*NAMES, "custom"])
def test_clear_retires_every_slot(eviction: str) -> None:
    """After a clear nothing is found, held or expiring, and the tier works on."""
    options: Any = cachetools.LRUCache(100) if eviction == "custom" else eviction
    bound = Bound(max_bytes=1_000_000, eviction=options)
    lookup = bound.tier.lookup
    slots = [bound.store(name, ttl=5) for name in "abc"]
    assert bound.tier.clear() == 3
    assert all(map(retired, slots))
    assert bound.keys == ""
    assert bound.tier.memory == (0, 1_000_000)
    assert not bound.evicted
    slot = bound.store("a")
    assert lookup("a") is slot
    assert bound.tier.clear() == 1


def test_a_slot_that_leaves_takes_its_alias_along() -> None:
    """A decorated function cannot find a slot that is not in the tier any more."""
    bound = Bound(max_entries=1)
    table: dict[object, Slot] = {}
    bound.store("a").name(table, 1)
    bound.store("b")
    assert table == {}


@pytest.mark.parametrize("eviction", NAMES)
@pytest.mark.parametrize("way", ["replaced", "discarded", "evicted", "expired", "cleared"])
def test_what_leaves_is_freed_at_once(eviction: str, way: str) -> None:
    """A slot is in no circle of references: its value goes with it, and waits for no collection."""
    bound = Bound(max_entries=3, eviction=eviction)
    gone = []
    for name in "abc":
        value = threading.Event()
        gone.append(weakref.ref(value))
        bound.store(name, value, ttl=5)
        del value
    gc.collect()
    gc.disable()
    try:
        if way == "replaced":
            for name in "abc":
                bound.store(name)
        elif way == "discarded":
            for name in "bca":
                bound.tier.discard(name)
        elif way == "evicted":
            for number in range(20):
                bound.store(str(number))
        elif way == "expired":
            bound.clock.advance(6)
            bound.tier.sweep(3)
        else:
            bound.tier.clear()
        held = [bound.tier.lookup(name) for name in "abc"]
        assert [each() for each in gone] == [slot and slot.value for slot in held]
        assert gone[0]() is None
    finally:
        gc.enable()


def test_hits_decide_who_stays() -> None:
    """What a hit does, by ``touch`` or by counting, reaches the order."""
    for eviction in NAMES:
        bound = Bound(max_entries=3, eviction=eviction)
        slots = [bound.store(name) for name in "abc"]
        if bound.tier.touch is None:
            slots[0].visited += 1
        else:
            bound.tier.touch(slots[0])
        bound.store("d")
        assert bound.tier.lookup("a") is slots[0]


@pytest.mark.parametrize("eviction", [*NAMES, "custom"])
def test_readers_need_no_lock(eviction: str) -> None:
    """Many threads look up and touch while others store, discard and sweep under the lock."""
    options: Any = cachetools.LRUCache(20) if eviction == "custom" else eviction
    bound = Bound(max_entries=20, eviction=options)
    lock, done = threading.Lock(), threading.Event()
    wrong: list[Slot] = []

    def read() -> None:
        tier = bound.tier
        while not done.is_set():
            for number in range(40):
                slot = tier.lookup(str(number))
                if slot is not None:
                    slot.visited += 1
                    if tier.touch is not None:
                        tier.touch(slot)
                    if slot.key != slot.value:
                        wrong.append(slot)

    def write(start: int) -> None:
        for turn in range(1_000):
            key = str((start + turn * 7) % 40)
            with lock:
                bound.store(key, key, ttl=turn % 3)
                bound.tier.discard(str(turn % 40))
                bound.clock.advance(0.1)
                bound.tier.sweep(2)

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(start,)) for start in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(30)
    done.set()
    for thread in readers:
        thread.join(30)
    assert not wrong
    held = [slot for number in range(40) if (slot := bound.tier.lookup(str(number)))]
    assert bound.tier.entries == (len(held), 20)
    assert not any(map(retired, held))
    assert bound.tier.clear() == len(held)


@pytest.mark.parametrize("eviction", NAMES)
def test_a_value_that_calls_back_when_it_is_dropped(eviction: str) -> None:
    """A finaliser may use the tier, under the same lock, whatever the tier is doing."""
    bound = Bound(max_bytes=20_000, eviction=eviction)
    keys = [str(number) for number in range(40)]
    called: list[str] = []

    class Value:
        def __init__(self, key: str, size: int) -> None:
            self.key = key
            self.text = "x" * size

        def __del__(self) -> None:
            called.append(self.key)
            for key in keys:
                bound.tier.discard(key)
            bound.store(f"from {self.key}", ttl=5)

    for number, key in enumerate(keys):
        bound.store(key, Value(key, number % 5 * 3_500), ttl=number % 7)
        bound.clock.advance(0.3)
        used, limit = bound.tier.memory or (0, 0)
        assert used <= limit
    bound.store("large", "x" * 18_000)
    bound.tier.clear()
    assert sorted(called) == sorted(keys)


def test_a_finaliser_stores_what_is_being_stored() -> None:
    """What came in between under the key is replaced as any other, and expires no second time."""
    bound = Bound(max_entries=1)
    inner: list[Slot] = []

    class Value:
        def __del__(self) -> None:
            inner.append(bound.store("b", ttl=5))

    bound.store("a", Value())
    outer = bound.store("b", ttl=60)
    assert retired(inner[0])
    assert inner[0].bucket_next is None
    bound.clock.advance(10)
    assert bound.tier.sweep(10) == 0
    assert bound.tier.lookup("b") is outer
    assert bound.evicted == {"capacity": 1}


def test_a_given_cache_bounds_the_tier_too() -> None:
    """The smaller of ``max_entries`` and ``maxsize`` holds, and is what telemetry sees."""
    for max_entries, maxsize, limit in [(5, 3, 3), (3, 5, 3), (None, 4, 4)]:
        bound = Bound(max_entries=max_entries, eviction=cachetools.LRUCache(maxsize))
        for number in range(9):
            bound.store(str(number))
        assert bound.tier.entries == (limit, limit)
        assert bound.evicted == {"capacity": 9 - limit}


def test_a_given_cache_that_measures_values_bounds_the_tier() -> None:
    """What it evicts or refuses by its own measure leaves the tier, counted."""
    cache: Any = cachetools.LRUCache(10, getsizeof=len)
    bound = Bound(eviction=cache)
    slots = [bound.store(name, "x" * 4) for name in "abc"]
    assert bound.keys == "bc" == "".join(cache)
    assert retired(slots[0])
    assert not bound.tier.store(make_slot("c", "x" * 11))
    assert bound.keys == "b" == "".join(cache)
    assert retired(slots[2])
    assert bound.tier.entries == (1, None)
    assert bound.evicted == {"capacity": 1, "rejected": 1}


def test_a_given_cache_that_expires_values_is_followed() -> None:
    """Its time to live takes slots out with the next store or sweep, counted as expired."""
    clock = FakeClock()
    bound = Bound(eviction=cachetools.TTLCache(10, 5, timer=clock.monotonic))
    bound.store("a")
    clock.advance(5)
    bound.store("b")
    assert bound.keys == "b"
    clock.advance(5)
    assert bound.tier.sweep(1) == 1
    assert bound.keys == ""
    assert bound.evicted == {"expired": 2}


def test_a_given_cache_may_drop_what_is_being_discarded() -> None:
    """A slot that its cache expires while it is being discarded leaves once."""
    clock = FakeClock()
    bound = Bound(eviction=cachetools.TTLCache(10, 5, timer=clock.monotonic))
    for name in "abc":
        bound.store(name, ttl=5)
    clock.advance(5)
    bound.clock.advance(5)
    assert bound.tier.discard("a")
    bound.tier.sweep(10)
    assert bound.tier.entries[0] == 0
    assert bound.evicted == {"expired": 2}


def test_default_bound() -> None:
    """A tier is never unbounded: 10,000 entries where nothing else is said."""
    unbounded: Any = cachetools.LRUCache(float("inf"))
    assert MemoryTier().entries == (0, 10_000)
    assert MemoryTier(max_bytes=1_000).entries == (0, None)
    assert MemoryTier(eviction=unbounded).entries == (0, 10_000)
    assert MemoryTier().memory is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_entries": 0}, "max_entries=0: give a whole number of 1 or more"),
        ({"max_entries": -1}, "max_entries=-1"),
        ({"max_entries": 1e4}, "max_entries=10000.0"),
        ({"max_entries": True}, "max_entries=True"),
        ({"max_entries": "10"}, "max_entries='10'"),
        ({"max_bytes": 0}, "max_bytes=0: give a whole number of 1 or more"),
        ({"max_bytes": "1MB"}, "max_bytes='1MB'"),
        ({"eviction": "fifo"}, "eviction='fifo': give 'default', 'lru', 'lfu', 'ttl' or an inst"),
        ({"eviction": None}, "eviction=None: give 'default', 'lru', 'lfu', 'ttl' or an instance"),
        ({"eviction": cachetools.LRUCache}, "or an instance of a cachetools cache"),
    ],
)
def test_refuses_settings_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    """The error names the field, the value and what is accepted."""
    with pytest.raises(PolicyError) as caught:
        MemoryTier(**options)
    assert message in str(caught.value)


def test_belongs_to_one_cache() -> None:
    """A second cache is refused; the first may bind again after it was closed."""
    bound = Bound()
    slot = bound.store("a")
    bound.tier.bind(bound.clock, bound.count)
    assert bound.tier.lookup("a") is slot
    with pytest.raises(PolicyError, match="belongs to another cache"):
        bound.tier.bind(FakeClock(), Bound().count)


def test_works_before_it_is_bound() -> None:
    """Without a cache a tier still keeps its bounds, on the machine's clock."""
    tier = MemoryTier(max_entries=1)
    assert tier.store(make_slot("a"))
    assert tier.store(make_slot("b"))
    assert tier.entries == (1, 1)


def test_loads_cachetools_only_when_it_is_asked_for() -> None:
    """The default order does without, and importing tiercache stays fast."""
    program = (
        "import sys; from tiercache.tiers.memory import MemoryTier; MemoryTier(); "
        "assert 'cachetools' not in sys.modules; MemoryTier(eviction='lru'); "
        "assert 'cachetools' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
