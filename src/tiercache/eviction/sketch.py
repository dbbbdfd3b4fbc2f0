"""How often a key was asked for lately, in a few bytes and whether it is held or not.

A count-min sketch after Einziger, Friedman and Manes, "TinyLFU", ACM Transactions on Storage 2017
(https://doi.org/10.1145/3149371): two counters for each key in one array, of which only the lower
grows and the lower counts, so that a key has to share both to look more popular than it is. All
are halved now and then: what was popular long ago has to prove it again.
"""

from __future__ import annotations

from typing import Final

CELLS: Final = 16
"""Counters for each entry held, a byte each; half as many cost 0.3 % of the hits."""

MOST: Final = 15
"""Where a counter stops: popular enough, and few enough halvings away from being forgotten."""

PERIOD: Final = 10
"""Uses for each entry held after which the counters are halved."""

PIECE: Final = 1 << 16
"""Counters halved in one go, in some 50 us; a sketch that is larger is halved piece by piece."""

_HALVES: Final = bytes(count >> 1 for count in range(256))


class Sketch:
    """Counts by digest, for a cache of about so many entries; ``most`` is where it should grow."""

    __slots__ = ("_cells", "_due", "_every", "_mask", "_piece", "most")

    def __init__(self, entries: int) -> None:
        size = 1 << (CELLS * entries - 1).bit_length()
        self._fit(bytearray(size), entries)

    def add(self, digest: int) -> int:
        """Count one use; return how many are remembered with it."""
        cells, mask = self._cells, self._mask
        first, second = digest & mask, digest >> 32 & mask
        count, other = cells[first], cells[second]
        if other < count:
            first, count = second, other
        elif count == other != MOST:
            cells[second] = count + 1
        if count != MOST:
            count += 1
            cells[first] = count
        self._due -= 1
        if not self._due:
            self._age()
        return count

    def estimate(self, digest: int) -> int:
        """Return how many of its uses are remembered; seldom too many, never too few."""
        cells, mask = self._cells, self._mask
        count, other = cells[digest & mask], cells[digest >> 32 & mask]
        return min(other, count)

    def grow(self, entries: int) -> None:
        """Make it fit for so many entries; every estimate stays what it was."""
        cells = self._cells
        while len(cells) < CELLS * entries:
            cells = cells + cells
        self._fit(cells, entries)

    def _fit(self, cells: bytearray, entries: int) -> None:
        self.most = 2 * entries
        self._cells = cells
        self._mask = len(cells) - 1
        self._piece = 0
        pieces = -(-len(cells) // PIECE)
        self._due = self._every = max(PERIOD * entries // pieces, 1)

    def _age(self) -> None:
        start = self._piece
        cells = self._cells
        cells[start : start + PIECE] = cells[start : start + PIECE].translate(_HALVES)
        self._piece = (start + PIECE) & self._mask if len(cells) > PIECE else 0
        self._due = self._every
