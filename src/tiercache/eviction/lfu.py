"""Least frequently used first, with counts that age.

A plain LFU never forgets: what was popular last week holds its place against everything that is
popular now. Here all counts are halved every few rounds, as TinyLFU does (Einziger, Friedman and
Manes, 2017). Halving a million counts at once would be a pause, so a new `cachetools.LFUCache` is
begun and the slots move over with half their count: one with every step, each when it is hit, and
the least used of those left behind before anything is evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cachetools import LFUCache

from tiercache.entry import FOREVER, Slot
from tiercache.eviction.touches import Touches

if TYPE_CHECKING:
    from cachetools import Cache

CAP: Final = 15
"""Highest count. It bounds the work of moving a slot; higher ones gained nothing on any trace."""

ROUND: Final = 3
"""Uses per slot held after which the counts are halved."""

SHORTEST_ROUND: Final = 100
"""Uses in the round of a cache so small that its counts would hardly get to differ."""


class LFU:
    """Evicts the slot with the lowest count; among equals, the one that cachetools names."""

    def __init__(self) -> None:
        self._current: Cache[str, Slot] = LFUCache(maxsize=FOREVER)
        self._aging: Cache[str, Slot] = LFUCache(maxsize=FOREVER)
        self._counts: dict[str, int] = {}
        self._remaining = SHORTEST_ROUND
        self._touches = Touches()
        self.touch: Callable[[Slot], None] = self._touches.append

    def add(self, slot: Slot) -> None:
        """Take a slot in with a count of one."""
        self.settle()
        self._counts[slot.key] = 1
        self._current[slot.key] = slot
        self._step()

    def replace(self, old: Slot, new: Slot) -> None:
        """Put the new slot in the old one's place; a write is a use."""
        self.settle()
        key = new.key
        if key in self._aging:
            del self._aging[key]
            self._admit(new)
        self._current[key] = new
        self._counts[key] = min(self._counts[key] + 1, CAP)
        self._step()

    def discard(self, slot: Slot) -> None:
        """Forget a slot and its count."""
        self.settle()
        del self._counts[slot.key]
        del (self._current if slot.key in self._current else self._aging)[slot.key]

    def victim(self) -> Slot:
        """Take out the least frequently used."""
        self.settle()
        if self._aging:
            key, slot = self._aging.popitem()
            if self._counts[key] // 2 <= 1 or not self._current:
                del self._counts[key]
                return slot
            self._admit(slot)  # it may still be the least of all, and is among them now
        key, slot = self._current.popitem()
        del self._counts[key]
        return slot

    def settle(self) -> None:
        """Replay the hits since the last time, so that nothing keeps a slot that left."""
        counts = self._counts
        for slot in self._touches.drain():
            if slot.key in counts:
                self._use(slot.key)

    def clear(self) -> None:
        """Forget everything."""
        self._touches.clear()
        self._current.clear()
        self._aging.clear()
        self._counts.clear()
        self._remaining = SHORTEST_ROUND

    def _use(self, key: str) -> None:
        """Count one use."""
        if key in self._aging:
            self._admit(self._aging.pop(key))
        if self._counts[key] < CAP:
            self._counts[key] += 1
            self._current[key]
        self._step()

    def _step(self) -> None:
        """Let time pass by one use."""
        if self._aging:
            self._admit(self._aging.popitem()[1])
        self._remaining -= 1
        if self._remaining <= 0:
            # One slot moves per use and there are several uses to a round: nobody is left behind.
            self._current, self._aging = self._aging, self._current
            self._remaining = max(ROUND * len(self._counts), SHORTEST_ROUND)

    def _admit(self, slot: Slot) -> None:
        """Bring a slot over from the last round with half its count."""
        count = self._counts[slot.key] = max(1, self._counts[slot.key] // 2)
        self._current[slot.key] = slot
        for _ in range(count - 1):
            self._current[slot.key]
