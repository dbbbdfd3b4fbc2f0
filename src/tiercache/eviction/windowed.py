"""A window for what is new, a main part for what is popular, and a filter between the two.

W-TinyLFU (Einziger, Friedman and Manes, 2017) without its lists: both parts are queues in which a
hit counts in ``visited`` and nothing else, and is looked at when the slot's turn has come. One that
was hit goes round again, as in CLOCK. One that was not leaves the window, and takes the place of
main's next victim if it was asked for more often; otherwise it goes itself. So a scan or a loop
larger than the cache passes through the window, and main stays what it is.

What fits a workload is the share of the window: all of it makes a CLOCK, which is as good as LRU
where what is new is what is asked for; a hundredth makes an LFU that ages.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from tiercache.eviction.queue import Linked, Queue
from tiercache.eviction.sketch import Sketch

ROUNDS: Final = 3
"""Rounds through main that hits can buy, however many they are. In the window they buy one: hits in
quick succession tell less than hits that keep coming."""

LEAD: Final = 1
"""By how many uses a newcomer has to lead. In a loop the newcomer is always one ahead: its last use
is this one, the victim's next is still to come."""

PATIENCE: Final = 100
"""Slots that may be given another round before one leaves regardless: it bounds a single eviction
when everything is popular, and costs no hits on any trace."""


MOVED: Final = 1_000
"""Slots that are moved when the parts are made: it bounds the pause to a millisecond."""


class Held(Linked, Protocol):
    """What an order is about."""

    visited: int
    cost: int

    @property
    def key(self) -> Hashable:
        """What it is found by."""
        ...


H = TypeVar("H", bound=Held)


class Windowed(Generic[H]):
    """Slots in two queues; ``share`` is the window's part of the cost that is held.

    It may be changed at any time: the parts grow and shrink from one eviction to the next.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.cost = 0
        self._window: Queue[H] = Queue()
        self._main: Queue[H] = Queue()
        self._window_cost = 0
        self._sketch: Sketch | None = None
        self._told: Callable[[H, int, int], None] | None = None
        """Told of a slot that is given another round: the hits it had, and those it is left."""
        self._untold = 0
        """Bits of a digest; of a slot with any of them nobody needs to be told."""

    def __len__(self) -> int:
        return self._window.length + self._main.length

    def add(self, slot: H) -> None:
        """Take a slot in, at the end of the window."""
        slot.visited = 0
        self._window.append(slot)
        self._window_cost += slot.cost
        self.cost += slot.cost

    def replace(self, old: H, new: H) -> None:
        """Give the new slot the old one's place and hits."""
        queue = old.queue
        new.visited = old.visited
        queue.substitute(old, new)
        more = new.cost - old.cost
        self.cost += more
        if queue is self._window:
            self._window_cost += more

    def victim(self) -> H:
        """Take out the slot that has to go; at least one is held."""
        window, main, sketch = self._window, self._main, self._sketch
        if sketch is None or window.length + main.length > sketch.most:
            sketch = self._counting()
        target = self.share * self.cost
        if not main.length and self._window_cost > target:
            self._divide(target)
            window, main = self._window, self._main
        patience = PATIENCE
        while True:
            if not window.length or (main.length and self._window_cost < target):
                slot = self._weakest(sketch, patience)
                main.remove(slot)
                break
            slot = window.next
            digest = hash(slot.key)
            uses = sketch.add(digest)
            hits = slot.visited
            if hits and patience:
                patience -= 1
                slot.visited = 0
                window.rotate()
                if self._told is not None and not digest & self._untold:
                    self._told(slot, hits, 0)
                continue
            window.remove(slot)
            self._window_cost -= slot.cost
            if not main.length:
                break
            if self._window_cost < target:
                if uses <= LEAD:  # nobody can be weaker
                    break
                weakest = self._weakest(sketch, patience)
                if uses <= sketch.estimate(hash(weakest.key)) + LEAD:
                    break
                main.remove(weakest)
                slot.visited = 0
                main.append(slot)
                slot = weakest
                break
            slot.visited = 0
            main.append(slot)  # the window is to be smaller: main has room
        self.cost -= slot.cost
        return slot

    def clear(self) -> None:
        """Forget everything, how often what was asked for included."""
        self._window.clear()
        self._main.clear()
        self._window_cost = self.cost = 0
        self._sketch = None

    def _divide(self, target: float) -> None:
        """Make a main part when the cache is full for the first time.

        All there is becomes main, which saves moving it, but for the last of them.
        """
        self._window, self._main = window, main = self._main, self._window
        self._window_cost = 0
        for _ in range(MOVED):
            slot = main.prev
            if self._window_cost + slot.cost > target:
                break
            self._window_cost += slot.cost
            main.remove(slot)
            window.prepend(slot)

    def _weakest(self, sketch: Sketch, patience: int) -> H:
        """Bring main's next victim to its front, and leave it there."""
        main = self._main
        while True:
            slot: H = main.next
            hits = slot.visited
            if not hits or not patience:
                return slot
            patience -= 1
            digest = hash(slot.key)
            sketch.add(digest)
            slot.visited = left = min(hits, ROUNDS) - 1
            main.rotate()
            if self._told is not None and not digest & self._untold:
                self._told(slot, hits, left)

    def _counting(self) -> Sketch:
        """Make the sketch fit what is held; before it is full for the first time there is none."""
        entries = len(self)
        if self._sketch is None:
            self._sketch = Sketch(entries)
        else:
            self._sketch.grow(entries)
        return self._sketch
