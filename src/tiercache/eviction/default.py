"""W-TinyLFU with a window whose share is elected, and nothing to do on a hit but count.

No fixed order of eviction fits all: where what is new is what is asked for, a filter by frequency
loses to plain LRU, and where a loop or a scan is larger than the cache, LRU keeps nothing at all.
`Windowed` is both and what lies between, by the share of its window. Which share is best for what
is asked for lately is found by an `Election` among miniatures of the cache.

The miniatures need to know of hits, and of their order, which the hot path does not report: it
counts in ``slot.visited``. So those slots of which the election wants to know are looked at when
their turn comes, one of them at every eviction, which is often: they are a hundred or so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from tiercache.entry import Slot
from tiercache.eviction.election import FIRST, SHARES, Election
from tiercache.eviction.windowed import Windowed

SAMPLE: Final = 128
"""Entries that a miniature holds at most. With half as many the choice errs more often (0.2 % of
the hits); twice as many are hardly better."""

DENSEST: Final = 3
"""A miniature takes one key of 2 ** 3 or fewer, in a small cache too: it bounds the cost."""

_SHIFTED: Final = 46
"""Where in a digest the bits are by which keys are chosen, away from those a sketch looks at."""

_WIDEST: Final = 16


class Adaptive(Windowed[Slot]):
    """The default order of eviction. Shares are of cost: they hold in entries as well as in bytes.

    ``find`` returns the slot that is held under a key: whoever keeps slots in order has them in a
    table already.

    Digests are `hash`, which differs from process to process: nobody can choose keys to collide,
    and two runs over one trace differ a little.
    """

    touch = None

    def __init__(self, find: Callable[[str], Slot | None]) -> None:
        super().__init__(SHARES[FIRST])
        self._find = find
        self._election: Election | None = None
        self._places: set[int] = set()
        self._watched: deque[str] = deque()
        self._seen: dict[str, int] = {}
        self._sample(DENSEST)

    def add(self, slot: Slot) -> None:
        """Take a slot in: to main if it left from there without being evicted, else as new."""
        key = slot.key
        digest = hash(key)
        slot.visited = 0
        self.cost += slot.cost
        if self._places and digest in self._places:
            self._places.remove(digest)
            self._main.append(slot)
        else:
            self._window.append(slot)
            self._window_cost += slot.cost
        if not digest & self._untold:
            self._watch(key)
            self._seen[key] = 0
            if self._election is not None:
                self._ask(digest, slot.cost, 1)
            if len(self._seen) > 2 * max(SAMPLE, len(self) >> self._shift):
                # It has grown, or what was watched has left without an eviction.
                if self._election is None:
                    self._resample()
                else:
                    self._open(self._election.elected)

    def discard(self, slot: Slot) -> None:
        """Forget a slot that leaves for another reason; one of main finds its place again."""
        queue = slot.queue
        if queue is None:  # a finaliser came in between: it is on its way out
            return
        queue.remove(slot)
        self.cost -= slot.cost
        if queue is self._window:
            self._window_cost -= slot.cost
            return
        if 2 * len(self._places) > queue.length:
            self._places.clear()
        self._places.add(hash(slot.key))

    def victim(self) -> Slot:
        """Take out the slot that has to go; look at one whose hits the miniatures wait for."""
        if self._election is None:
            self._open(FIRST)
        elif self._watched:
            key = self._watched.popleft()
            slot = self._find(key)
            if slot is None:
                del self._seen[key]
            else:
                self._watched.append(key)
                hits = slot.visited
                if hits != self._seen[key]:
                    self._tell(slot, hits, hits)
        return super().victim()

    def settle(self) -> None:
        """Do nothing: hits are counted where they happen."""

    def clear(self) -> None:
        """Forget everything, what left before and what was learnt included."""
        super().clear()
        self.share = SHARES[FIRST]
        self._election = None
        self._places.clear()
        self._watched.clear()
        self._seen.clear()
        self._told = None
        self._sample(DENSEST)

    def _tell(self, slot: Slot, hits: int, left: int) -> None:
        """Ask the miniatures for a slot as often as it was hit since the last time."""
        key = slot.key
        times = hits - self._watch(key)
        self._seen[key] = left
        if times > 0:
            self._ask(hash(key), slot.cost, times)

    def _watch(self, key: str) -> int:
        """See to it that a key gets its turn; return the hits that have been told of."""
        seen = self._seen.get(key)
        if seen is None:
            self._watched.append(key)
            return 0
        return seen

    def _ask(self, digest: int, cost: int, times: int) -> None:
        election = self._election
        assert election is not None
        if election.request(digest, cost, times, self.cost >> self._shift):
            self.share = election.share
            if abs(self._fit() - self._shift) > 1:  # large values have given way to small ones
                self._open(election.elected)

    def _open(self, elected: int) -> None:
        """Begin with new miniatures, which know what is held of the sample."""
        self._resample()
        self._election = Election(elected)
        self._told = self._tell
        for key in list(self._watched):
            slot = self._find(key)
            if slot is not None:
                self._ask(hash(key), slot.cost, 1)

    def _resample(self) -> None:
        """Choose as many keys as suit what is held, and watch no others, nor any that have left."""
        self._sample(self._fit())
        kept = [
            key
            for key in self._watched
            if not hash(key) & self._untold and self._find(key) is not None
        ]
        self._seen = {key: self._seen[key] for key in kept}
        self._watched = deque(kept)

    def _fit(self) -> int:
        """Return how many bits of a digest to choose by, for as many as are held."""
        surplus = (len(self) - 1) // SAMPLE
        return min(max(surplus.bit_length(), DENSEST), _WIDEST)

    def _sample(self, shift: int) -> None:
        self._shift = shift
        self._untold = (1 << shift) - 1 << _SHIFTED
