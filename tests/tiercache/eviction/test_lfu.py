from tests.tiercache.eviction.slots import drain, fill, hit, make_slot
from tiercache.eviction.lfu import CAP, LFU, SHORTEST_ROUND


def test_the_least_frequently_used_leaves_first() -> None:
    """Counts decide; among equals, cachetools does."""
    order = LFU()
    slots = fill(order, "abcdefgh")
    for name in "aabccc":
        hit(order, slots[name])
    assert set(drain(order, 5)) == set("defgh")
    assert drain(order, 3) == "bac"


def test_a_replaced_slot_keeps_its_count() -> None:
    """A refresh does not make a popular entry look new."""
    order = LFU()
    slots = fill(order, "abcdefgh")
    hit(order, slots["a"])
    order.settle()
    order.replace(slots["a"], make_slot("a"))
    assert drain(order, 8)[-1] == "a"


def test_counts_age() -> None:
    """What was popular once does not outlast what is popular now."""
    order = LFU()
    slots = fill(order, "ab")
    for _ in range(100 * CAP):
        hit(order, slots["a"])
    for _ in range(4 * SHORTEST_ROUND):
        hit(order, slots["b"])
    newcomer = make_slot("c")
    order.add(newcomer)
    for _ in range(3):
        hit(order, newcomer)
    assert drain(order, 3) == "acb"


def test_a_newcomer_does_not_push_out_the_popular_while_counts_age() -> None:
    """At every stage of halving, what was never hit leaves before what is hit all the time."""
    order = LFU()
    popular = [make_slot(str(number)) for number in range(200)]
    for slot in popular:
        order.add(slot)
    for turn in range(20):
        for number, slot in enumerate(popular):
            hit(order, slot)
            if turn > 8 and number % 40 == 0:
                newcomer = make_slot(f"new:{turn}:{number}")
                order.add(newcomer)
                assert order.victim() is newcomer


def test_a_slot_replaced_while_counts_age_keeps_its_rank() -> None:
    """A refresh at any moment of a round leaves the popular slot ahead of the less popular ones."""
    for uses in range(0, 330, 3):
        order = LFU()
        slots = {str(number): make_slot(str(number)) for number in range(100)}
        for slot in slots.values():
            order.add(slot)
        for name in ["50"] * CAP + ["60", "61", "62", "63"] * 3 + ["70"] * uses:
            hit(order, slots[name])
        order.settle()
        order.replace(slots["50"], make_slot("50"))
        left = [order.victim().key for _ in range(100)]
        assert "50" in left[-2:]


def test_slots_are_kept_through_many_rounds() -> None:
    """However often counts are halved, each slot is held once and leaves once."""
    order = LFU()
    slots = [make_slot(str(number)) for number in range(50)]
    for number, slot in enumerate(slots):
        order.add(slot)
        for other in slots[: number + 1 : 3]:
            hit(order, other)
        order.settle()
    for slot in slots[::5]:
        order.discard(slot)
    left = [order.victim() for _ in range(40)]
    expected = {slot.key for number, slot in enumerate(slots) if number % 5}
    assert {slot.key for slot in left} == expected
