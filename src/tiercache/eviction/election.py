"""Which share of the window is best, found by trying several at once, in miniature.

A cache of an n-th of the size, asked for an n-th of the keys (chosen by their digests), misses as
often as the whole (Waldspurger, Saemundsson, Ahmad and Park, "Cache Modeling and Optimization using
Miniature Simulations", USENIX ATC 2017). So a few miniatures, each with a share of its own, show
what the cache would have missed with that share; the one that missed least lately is elected.
"""

from __future__ import annotations

from typing import Any, Final

from tiercache.eviction.windowed import Windowed

SHARES: Final = (0.01, 0.1, 0.3, 0.6, 1.0)
"""Who stands for election: from a filter by frequency to a plain queue of the recent."""

FIRST: Final = 1
"""Which of them reigns before there is anything to go by."""

MEMORY: Final = 0.97
"""How much of a count is left after a term, which lasts as many requests as a miniature holds."""

LEAD: Final = 0.01
"""By which part of the misses a challenger has to be better; saves changing between equals."""


class Ballot:
    """A key in a miniature."""

    __slots__ = ("cost", "key", "next", "prev", "queue", "visited")

    def __init__(self, key: int, cost: int) -> None:
        self.key = key
        self.cost = cost
        self.visited = 0
        self.queue: Any = None
        self.prev: Any = None
        self.next: Any = None


class Miniature(Windowed[Ballot]):
    """A small cache with one of the shares, that knows what it holds."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.held: dict[int, Ballot] = {}


class Election:
    """Miniatures of a cache, and what each has missed.

    ``elected`` is the number of the share that is to be used now.
    """

    def __init__(self, elected: int = FIRST) -> None:
        self.elected = elected
        self._miniatures = tuple(map(Miniature, SHARES))
        self._misses = [0.0] * len(SHARES)
        self._requests = 0

    @property
    def share(self) -> float:
        """The share that was elected."""
        return SHARES[self.elected]

    def request(self, digest: int, cost: int, times: int, capacity: int) -> bool:
        """Ask every miniature for a key; return whether a term has ended with that.

        ``capacity`` is what a miniature may hold now, in cost.
        """
        misses = self._misses
        for number, miniature in enumerate(self._miniatures):
            ballot = miniature.held.get(digest)
            if ballot is not None:
                ballot.visited += times
                continue
            misses[number] += 1
            if cost > capacity:
                continue
            while miniature.cost + cost > capacity:
                del miniature.held[miniature.victim().key]
            miniature.held[digest] = ballot = Ballot(digest, cost)
            miniature.add(ballot)
            ballot.visited = times - 1
        self._requests += 1
        if self._requests < len(self._miniatures[-1]):
            return False
        self._requests = 0
        self._elect()
        return True

    def _elect(self) -> None:
        misses = self._misses
        best = min(range(len(misses)), key=misses.__getitem__)
        if misses[best] < misses[self.elected] * (1 - LEAD):
            self.elected = best
        self._misses = [count * MEMORY for count in misses]
