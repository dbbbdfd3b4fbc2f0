"""S3-FIFO: three queues, and nothing to do on a hit but count.

After Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache eviction",
SOSP 2023 (https://doi.org/10.1145/3600006.3613147). Most entries are never asked for again. So a
new one enters a *small* queue of a tenth of the cache and leaves it soon, for good unless it was
hit more than once; the *main* queue is for those that were, and each hit there buys another round.
A *ghost* remembers the keys of those that left: who comes back while still remembered was put out
too early and goes straight to main.

The ghost is no queue here but two sets of hashes, the keys of late and those before them, which are
dropped together. Against an exact queue that costs 0.2 points of hit ratio at worst, on any of nine
traces, and takes half the time and a third of the memory.

A cache that is full for the first time takes all it holds for its main queue: nobody has been on
probation yet. Without that, a loop of several times its size would hit next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tiercache.entry import Slot

SMALL_SHARE: Final = 0.1
"""Share of what is held that the small queue may take before it is the one to evict from."""

PROMOTED: Final = 2
"""Hits in the small queue that bring a slot to main."""

ROUNDS: Final = 3
"""Rounds through main that hits can buy, however many they are."""

PATIENCE: Final = 1_000
"""Slots that may be given another round before one leaves regardless: bounds a single eviction to
a fraction of a millisecond when everything is popular. A tenth of it costs no hits on any trace."""


class S3FIFO:
    """Evicts by S3-FIFO. The hot path counts hits in ``slot.visited``, without a lock or a limit.

    Queue shares are shares of cost, so they hold in entries as well as in bytes. The queues are
    ordered dicts because a slot that is invalidated leaves from the middle.
    """

    touch = None

    def __init__(self) -> None:
        self._small: OrderedDict[str, Slot] = OrderedDict()
        self._main: OrderedDict[str, Slot] = OrderedDict()
        self._ghost: set[int] = set()
        self._older_ghost: set[int] = set()
        self._small_cost = 0
        self._held = 0

    def add(self, slot: Slot) -> None:
        """Take a slot in: at the end of main if its key is remembered, else of small."""
        slot.visited = 0
        self._held += slot.cost
        digest = hash(slot.key)
        if digest in self._ghost or digest in self._older_ghost:
            self._ghost.discard(digest)
            self._older_ghost.discard(digest)
            self._main[slot.key] = slot
        else:
            self._small[slot.key] = slot
            self._small_cost += slot.cost

    def replace(self, old: Slot, new: Slot) -> None:
        """Give the new slot the old one's queue, place and hits."""
        new.visited = old.visited
        self._held += new.cost - old.cost
        if new.key in self._main:
            self._main[new.key] = new
        else:
            self._small[new.key] = new
            self._small_cost += new.cost - old.cost

    def discard(self, slot: Slot) -> None:
        """Forget a slot; one that had earned its place finds it again when it comes back."""
        self._held -= slot.cost
        if self._main.pop(slot.key, None) is None:
            del self._small[slot.key]
            self._small_cost -= slot.cost
            if slot.visited < PROMOTED:
                return
        self._remember(slot)

    def victim(self) -> Slot:
        """Take out the first slot, of whichever queue is to give, that has no hits to spend."""
        if not self._main:
            # Full for the first time.
            self._small, self._main = self._main, self._small
            self._small_cost = 0
        small, main = self._small, self._main
        patience = PATIENCE
        while True:
            patience -= 1
            if self._small_cost >= SMALL_SHARE * self._held:
                key, slot = small.popitem(last=False)
                self._small_cost -= slot.cost
                if slot.visited >= PROMOTED and patience > 0:
                    slot.visited = 0
                    main[key] = slot
                    continue
                self._remember(slot)
            else:
                key = next(iter(main))
                slot = main[key]
                if slot.visited > 0 and patience > 0:
                    slot.visited = min(slot.visited, ROUNDS) - 1
                    main.move_to_end(key)
                    continue
                del main[key]
            self._held -= slot.cost
            return slot

    def settle(self) -> None:
        """Do nothing: hits are counted where they happen."""

    def clear(self) -> None:
        """Forget everything, what left before included."""
        self._small.clear()
        self._main.clear()
        self._ghost.clear()
        self._older_ghost.clear()
        self._small_cost = self._held = 0

    def _remember(self, slot: Slot) -> None:
        """Note the key of a slot that left; half as many as are held make one generation."""
        self._ghost.add(hash(slot.key))
        if 2 * len(self._ghost) > len(self._small) + len(self._main):
            self._older_ghost, self._ghost = self._ghost, set()
