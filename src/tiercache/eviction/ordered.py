"""A cachetools cache as an order: it says who goes next, the memory tier says when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tiercache.entry import Slot
from tiercache.eviction.touches import Touches

if TYPE_CHECKING:
    from cachetools import Cache


class Ordered:
    """Keeps slots in a cachetools cache of infinite size, so that only ``popitem`` evicts."""

    def __init__(self, cache: Cache[str, Slot]) -> None:
        self._cache = cache
        self._touches = Touches()
        self.touch: Callable[[Slot], None] = self._touches.append

    def add(self, slot: Slot) -> None:
        """Take a slot in as the most recently used."""
        self.settle()
        self._cache[slot.key] = slot

    def replace(self, old: Slot, new: Slot) -> None:
        """Put the new slot in the old one's place; a write is a use."""
        self.settle()
        self._cache[new.key] = new

    def discard(self, slot: Slot) -> None:
        """Forget a slot."""
        self.settle()
        del self._cache[slot.key]

    def victim(self) -> Slot:
        """Take out the slot that cachetools chooses."""
        self.settle()
        return self._cache.popitem()[1]

    def settle(self) -> None:
        """Replay the hits since the last time, so that nothing keeps a slot that left."""
        cache = self._cache
        for slot in self._touches.drain():
            if slot.key in cache:
                cache[slot.key]

    def clear(self) -> None:
        """Forget everything."""
        self._touches.clear()
        self._cache.clear()
