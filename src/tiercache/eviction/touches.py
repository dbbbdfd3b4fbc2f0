"""Hits on their way into an order that is not thread-safe.

A hit must not wait for a lock, and cachetools must not be used without one. So a hit only appends
its slot to a bounded deque, which is one C call and atomic, and whoever next holds the lock replays
what is there, as Caffeine does with its read buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from tiercache.entry import Slot

CAPACITY: Final = 4_096
"""Hits kept between two calls under the lock. A full buffer drops its oldest hits: that many hits
without a single miss mean that next to nothing is being evicted."""


class Touches:
    """The hits since the last replay, in order.

    ``append`` may be called by any thread without a lock; everything else needs it.
    """

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque(maxlen=CAPACITY)
        self.append = self._slots.append

    def drain(self) -> Iterator[Slot]:
        """Take out what is there now; hits that arrive meanwhile stay for the next time."""
        slots = self._slots
        for _ in range(len(slots)):
            if not slots:  # dropping a slot ran a finaliser that came here as well
                return
            yield slots.popleft()

    def clear(self) -> None:
        """Drop every hit."""
        self._slots.clear()
