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

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

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


class Held(Protocol):
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

    It may be changed at any time: the parts grow and shrink from one eviction to the next. The
    queues are ordered dicts because a slot that is invalidated leaves from the middle.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.cost = 0
        self._window: OrderedDict[Hashable, H] = OrderedDict()
        self._main: OrderedDict[Hashable, H] = OrderedDict()
        self._window_cost = 0
        self._sketch: Sketch | None = None
        self._told: Callable[[H, int], None] | None = None
        """Told of a slot that is given another round, and of the ``visited`` it will have."""

    def __len__(self) -> int:
        return len(self._window) + len(self._main)

    def find(self, key: Hashable) -> H | None:
        """Return what is held under the key."""
        return self._window.get(key) or self._main.get(key)

    def add(self, slot: H) -> None:
        """Take a slot in, at the end of the window."""
        slot.visited = 0
        self._window[slot.key] = slot
        self._window_cost += slot.cost
        self.cost += slot.cost

    def replace(self, old: H, new: H) -> None:
        """Give the new slot the old one's place and hits."""
        new.visited = old.visited
        self.cost += new.cost - old.cost
        if new.key in self._main:
            self._main[new.key] = new
        else:
            self._window[new.key] = new
            self._window_cost += new.cost - old.cost

    def victim(self) -> H:
        """Take out the slot that has to go; at least one is held."""
        window, main, sketch = self._window, self._main, self._sketch
        if sketch is None or len(window) + len(main) > sketch.most:
            sketch = self._counting()
        target = self.share * self.cost
        if not main and self._window_cost > target:
            self._divide(target)
            window, main = self._window, self._main
        patience = PATIENCE
        while True:
            if not window or (main and self._window_cost < target):
                slot = self._weakest(sketch, patience)
                del main[slot.key]
                break
            key, slot = window.popitem(last=False)
            uses = sketch.add(hash(key))
            if slot.visited and patience:
                patience -= 1
                if self._told is not None:
                    self._told(slot, 0)
                slot.visited = 0
                window[key] = slot
                continue
            self._window_cost -= slot.cost
            if not main:
                break
            if self._window_cost < target:
                if uses <= LEAD:  # nobody can be weaker
                    break
                weakest = self._weakest(sketch, patience)
                if uses <= sketch.estimate(hash(weakest.key)) + LEAD:
                    break
                del main[weakest.key]
                main[key] = slot
                slot.visited = 0
                slot = weakest
                break
            main[key] = slot  # the window is to be smaller: main has room
            slot.visited = 0
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
            key, slot = main.popitem()
            if self._window_cost + slot.cost > target:
                main[key] = slot
                break
            self._window_cost += slot.cost
            window[key] = slot
            window.move_to_end(key, last=False)

    def _weakest(self, sketch: Sketch, patience: int) -> H:
        """Bring main's next victim to its front, and leave it there."""
        main = self._main
        while True:
            key = next(iter(main))
            slot = main[key]
            if not slot.visited or not patience:
                return slot
            patience -= 1
            sketch.add(hash(key))
            left = min(slot.visited, ROUNDS) - 1
            if self._told is not None:
                self._told(slot, left)
            slot.visited = left
            main.move_to_end(key)

    def _counting(self) -> Sketch:
        """Make the sketch fit what is held; before it is full for the first time there is none."""
        entries = len(self)
        if self._sketch is None:
            self._sketch = Sketch(entries)
        else:
            self._sketch.grow(entries)
        return self._sketch
