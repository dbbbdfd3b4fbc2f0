"""The figures of a cache that only exists on paper."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tiercache.stats import Counters, Tally, TierCounters
from tiercache.telemetry.observer import TierFigures


@dataclass
class PaperTier:
    """A tier with whatever figures a test gives it."""

    level: str
    counters: TierCounters = field(default_factory=TierCounters)
    entries: tuple[int, int | None] | None = None
    memory: tuple[int, int | None] | None = None
    circuit: str | None = None


@dataclass(eq=False)
class PaperCache:
    """A cache with whatever figures a test gives it."""

    name: str = "app"
    requests: Counters = field(default_factory=Counters)
    coalesced_cluster: int = 0
    tally: Tally = field(default_factory=Tally)
    levels: Sequence[TierFigures] = ()
    bus_connected: bool | None = None

    def counters(self) -> Counters:
        return self.requests

    def tiers(self) -> Sequence[TierFigures]:
        return self.levels


def full_cache(name: str = "app") -> PaperCache:
    """Return a cache of three tiers and a bus, in which every figure is known."""
    return PaperCache(
        name=name,
        levels=(
            PaperTier("l1", entries=(3, 100), memory=(300, 1000)),
            PaperTier("l2", entries=(5, None), circuit="closed"),
            PaperTier("l3", entries=(7, None), circuit="open"),
        ),
        bus_connected=True,
    )
