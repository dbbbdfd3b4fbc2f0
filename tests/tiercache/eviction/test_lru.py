from tests.tiercache.eviction.slots import drain, fill, hit, make_slot
from tiercache.eviction.lru import LRU


def test_the_least_recently_used_leaves_first() -> None:
    """A hit saves a slot from being next."""
    order = LRU()
    slots = fill(order, "abcd")
    hit(order, slots["a"])
    hit(order, slots["c"])
    assert drain(order, 4) == "bdac"


def test_a_write_is_a_use() -> None:
    """A replaced slot counts as used just now."""
    order = LRU()
    slots = fill(order, "abc")
    order.replace(slots["a"], make_slot("a"))
    assert drain(order, 3) == "bca"


def test_a_hit_counts_when_it_happened() -> None:
    """A hit is older than what was added after it, although it is replayed later."""
    order = LRU()
    slots = fill(order, "ab")
    hit(order, slots["a"])
    order.add(make_slot("c"))
    assert drain(order, 3) == "bac"
