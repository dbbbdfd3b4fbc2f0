"""Slots for tests of eviction, and an order's hits as the hot path makes them."""

from tiercache.entry import FOREVER, Slot
from tiercache.eviction.base import Eviction
from tiercache.tiers.base import LocalTier


def make_slot(
    key: str,
    value: object = None,
    *,
    until: float = FOREVER,
    cost: int = 1,
    tags: tuple[str, ...] = (),
) -> Slot:
    """Return a slot that may be served until its time is over, and not a moment longer."""
    slot = Slot(key, value, refresh_at=until, expires=until, stale_until=until, tags=tags)
    slot.cost = cost
    return slot


def hit(order: Eviction | LocalTier, slot: Slot) -> None:
    """Do what the hot path does on a hit in an order, or in a tier with that order."""
    if order.touch is None:
        slot.visited += 1
    else:
        order.touch(slot)


def fill(order: Eviction, names: str) -> dict[str, Slot]:
    """Add one slot per letter, in order."""
    slots = {name: make_slot(name) for name in names}
    for slot in slots.values():
        order.add(slot)
    return slots


def drain(order: Eviction, count: int) -> str:
    """Return the keys of the next victims."""
    return "".join(order.victim().key for _ in range(count))
