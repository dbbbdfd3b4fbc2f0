from tests.tiercache.eviction.slots import drain, hit, make_slot
from tiercache.eviction.ttl import TTL


def test_among_live_slots_the_least_recently_used_leaves_first() -> None:
    """Remaining time makes no difference between slots that are not over, as in cachetools."""
    order = TTL()
    slots = {name: make_slot(name, until=until) for name, until in [("a", 9.0), ("b", 5.0)]}
    for slot in slots.values():
        order.add(slot)
    order.add(make_slot("c"))
    hit(order, slots["b"])
    assert drain(order, 3) == "acb"
