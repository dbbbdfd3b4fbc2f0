"""What a cache shows of itself: the sum over its functions, and its tiers for telemetry."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from tiercache.stats import Counters, Tally, TierCounters
from tiercache.telemetry.observer import TierFigures
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.memory import MemoryTier


class CacheFigures:
    """The figures of one cache, for `Cache.stats` and for observable instruments."""

    def __init__(
        self, name: str, memory: MemoryTier | None, connected: Callable[[], bool] | None
    ) -> None:
        self.name = name
        self.own = Counters()
        """What was asked by key, without a decorated function."""
        self.tally = Tally()
        self.guarded: Sequence[GuardedTier] = ()
        self._memory = memory
        self._connected = connected
        self._retired = Counters()
        self._functions: dict[int, Counters] = {}

    def adopt(self, owner: object, counters: Counters) -> None:
        """Count a function's figures in, for as long as it lives and after."""
        if id(counters) not in self._functions:
            self._functions[id(counters)] = counters
            weakref.finalize(owner, _fold, self._functions, self._retired, counters)

    def counters(self) -> Counters:
        """Return the sum over the cache's functions and its own methods."""
        return Counters.total([self.own, self._retired, *tuple(self._functions.values())])

    @property
    def coalesced_cluster(self) -> int:
        """Requests that waited for a load of another process."""
        return self.counters().coalesced_elsewhere

    def tiers(self) -> Sequence[TierFigures]:
        """Return the figures of each tier."""
        memory = [] if self._memory is None else [MemoryFigures(self._memory, self.counters())]
        return [*memory, *self.guarded]

    @property
    def bus_connected(self) -> bool | None:
        """Whether the bus is connected; None without one."""
        return None if self._connected is None else self._connected()


class MemoryFigures:
    """L1 as telemetry sees it; its lookups follow from the counters of requests."""

    circuit = None
    level = "l1"

    def __init__(self, memory: MemoryTier, counters: Counters) -> None:
        self.entries = memory.entries
        self.memory = memory.memory
        self.counters = TierCounters()
        self.counters.hits = counters.l1
        self.counters.misses = counters.l2 + counters.l3 + counters.misses + counters.stale


def _fold(functions: dict[int, Counters], retired: Counters, counters: Counters) -> None:
    retired.add(counters)
    del functions[id(counters)]
