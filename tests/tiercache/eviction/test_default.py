import itertools

import pytest

from tests.tiercache.eviction.slots import drain, fill, hit, make_slot
from tiercache.entry import Slot
from tiercache.eviction.default import PATIENCE, ROUNDS, S3FIFO


def run(keys: list[str], size: int, cost: dict[str, int] | None = None) -> float:
    """Return the hit ratio of a cache of that size (in cost) that is asked for the keys."""
    order, held, used, hits = S3FIFO(), dict[str, Slot](), 0, 0
    for key in keys:
        if key in held:
            hits += 1
            hit(order, held[key])
            continue
        slot = make_slot(key, cost=cost[key] if cost else 1)
        while used + slot.cost > size:
            victim = order.victim()
            del held[victim.key]
            used -= victim.cost
        order.add(slot)
        held[key] = slot
        used += slot.cost
    return hits / len(keys)


def test_what_is_never_asked_for_again_leaves_first() -> None:
    """A scan passes through the small queue; what has been hit stays."""
    order = S3FIFO()
    slots = fill(order, "abcdefghij")
    for name in "abcde":
        hit(order, slots[name])
    for number in range(100):
        order.victim()
        order.add(make_slot(str(number)))
        for name in "abcde":
            hit(order, slots[name])
    left = {order.victim().key for _ in range(5)}
    assert left.isdisjoint("abcde")


def test_a_scan_costs_next_to_nothing() -> None:
    """A loop over popular keys mixed with keys asked for once keeps nearly all of its hits."""
    popular = [f"popular:{number}" for number in range(40)]
    scan = (f"once:{number}" for number in itertools.count())
    keys = [key for _ in range(200) for name in popular for key in (name, next(scan))]
    assert run(keys, 100) > 0.48


def test_who_comes_back_soon_goes_to_main() -> None:
    """A key that was put out too early is remembered and does not pass the small queue again."""
    order = S3FIFO()
    fill(order, "abcdefghij")
    order.victim()  # full for the first time: the others are main now
    order.add(make_slot("early"))
    assert order.victim().key == "early"
    order.add(make_slot("early"))
    assert order.victim().key == "b"
    order.add(make_slot("new"))
    assert drain(order, 10) == "newcdefghijearly"


def test_a_replaced_slot_keeps_its_standing() -> None:
    """A refresh takes the old slot's place and hits."""
    order = S3FIFO()
    slots = fill(order, "abc")
    hit(order, slots["a"])
    new = make_slot("a", cost=2)
    order.replace(slots["a"], new)
    assert drain(order, 2) == "bc"
    assert order.victim() is new


def test_an_invalidated_slot_finds_its_place_again() -> None:
    """Who had made it to main is back in main when it is loaded anew."""
    order = S3FIFO()
    slots = fill(order, "abcdefghij")
    order.victim()
    order.discard(slots["b"])
    order.add(make_slot("b"))
    order.add(make_slot("new"))
    assert drain(order, 2) == "newc"


def test_an_invalidated_slot_that_was_hit_twice_goes_to_main() -> None:
    """Who would have been promoted from the small queue need not begin again."""
    for hits, expected in [(1, "twice"), (2, "b")]:
        order = S3FIFO()
        fill(order, "abcdefghij")
        order.victim()
        slot = make_slot("twice")
        order.add(slot)
        for _ in range(hits):
            hit(order, slot)
        order.discard(slot)
        order.add(make_slot("twice"))
        assert order.victim().key == expected


def test_two_hits_in_the_small_queue_are_promotion() -> None:
    """A newcomer that is hit twice stays when its turn comes; one hit is not enough."""
    for hits, expected in [(1, "new"), (2, "b")]:
        order = S3FIFO()
        fill(order, "abcdefghij")
        order.victim()
        slot = make_slot("new")
        order.add(slot)
        for _ in range(hits):
            hit(order, slot)
        assert order.victim().key == expected


def test_a_replacement_that_costs_more_fills_the_small_queue() -> None:
    """The share of the small queue follows the cost of what is in it."""
    order = S3FIFO()
    fill(order, "abcdefghij")
    for name in "klmnopqrst":
        order.add(make_slot(name))
    order.victim()
    small = make_slot("small")
    order.add(small)
    order.replace(small, make_slot("small", cost=10))
    assert order.victim().key == "small"


def test_queue_shares_are_shares_of_cost() -> None:
    """One large newcomer fills the small queue as ten small ones would."""
    order = S3FIFO()
    fill(order, "abcdefghij")
    order.victim()
    order.add(make_slot("large", cost=5))
    assert drain(order, 2) == "largeb"


def test_popular_small_values_survive_large_ones_asked_for_once() -> None:
    """Bounded by bytes, large values that nobody wants again do not flush the popular ones."""
    popular = [f"popular:{number}" for number in range(80)]
    keys = [
        key
        for turn in range(100)
        for number, name in enumerate(popular)
        for key in ((name, f"once:{turn}:{number}") if number % 8 == 0 else (name,))
    ]
    cost = {key: 10 if key.startswith("once") else 1 for key in keys}
    assert run(keys, 150, cost) > 0.8


def test_one_eviction_is_bounded_when_everything_is_popular() -> None:
    """No single call walks the whole cache, however many hits there were."""
    order = S3FIFO()
    slots = [make_slot(str(number)) for number in range(3 * PATIENCE)]
    for slot in slots:
        order.add(slot)
        slot.visited = ROUNDS
    order.victim()
    assert sum(ROUNDS - slot.visited for slot in slots) <= PATIENCE


def test_past_popularity_buys_a_few_rounds_only() -> None:
    """A slot with a million hits leaves once it has gone round without any more."""
    order = S3FIFO()
    slots = fill(order, "ab")
    slots["a"].visited = 1_000_000
    slots["b"].visited = ROUNDS + 1
    assert drain(order, 2) == "ab"


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_memory_of_the_past_is_bounded(size: int) -> None:
    """The ghost remembers hardly more keys than the cache holds."""
    order = S3FIFO()
    for number in range(1_000):
        if number >= size:
            order.victim()
        order.add(make_slot(str(number)))
        assert len(order._ghost) + len(order._older_ghost) <= size + 2


def test_clear_forgets_the_past_too() -> None:
    """A key remembered before a clear is new afterwards."""
    order = S3FIFO()
    fill(order, "abcdefghij")
    order.victim()
    order.add(make_slot("early"))
    order.victim()
    order.clear()
    fill(order, "abcdefghij")
    order.victim()
    order.add(make_slot("early"))
    assert drain(order, 1) == "early"
