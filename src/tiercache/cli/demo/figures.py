"""The figures of a run, of all processes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tiercache.cli.demo.proofs import Proofs
from tiercache.cli.demo.recorder import Latency
from tiercache.cli.demo.truth import Tally
from tiercache.stats import CacheStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What happened so far. Latencies and spans are those of this process, in seconds."""

    elapsed: float
    interrupted: bool
    processes: int
    tiers: Mapping[str, str]
    hits: Mapping[str, int]
    stale: int
    misses: int
    loads: int
    coalesced: int
    invalidations: int
    evictions: int
    committed: int
    rolled_back: int
    checked: Tally
    latencies: Mapping[str, Latency]
    spans: Mapping[str, int]
    metrics: Mapping[str, float]
    proofs: Proofs

    @property
    def requests(self) -> int:
        """Reads of all processes."""
        return sum(self.hits.values()) + self.stale + self.misses

    @property
    def hit_ratio(self) -> float:
        """Share of them that a tier answered."""
        return 1 - self.misses / self.requests if self.requests else 0.0

    @property
    def saved(self) -> int:
        """Reads that no tier could answer, and that shared the load of another."""
        return max(self.misses - self.loads, 0)

    @property
    def sound(self) -> bool:
        """Whether nothing that was looked at was other than promised."""
        return self.proofs.hold and not (self.checked.stale or self.checked.uncommitted)

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        proofs = self.proofs
        return {
            "elapsed": round(self.elapsed, 3),
            "interrupted": self.interrupted,
            "processes": self.processes,
            "tiers": dict(self.tiers),
            "requests": self.requests,
            "hit_ratio": round(self.hit_ratio, 6),
            "hits": dict(self.hits),
            "misses": self.misses,
            "loads": self.loads,
            "loads_saved": self.saved,
            "coalesced": self.coalesced,
            "invalidations": self.invalidations,
            "evictions": self.evictions,
            "transactions": {"committed": self.committed, "rolled_back": self.rolled_back},
            "checked": asdict(self.checked),
            "latency_seconds": {
                source: asdict(latency) for source, latency in self.latencies.items()
            },
            "stampede": proofs.stampede
            and {
                **asdict(proofs.stampede),
                "saved": proofs.stampede.saved,
                "holds": proofs.stampede.holds,
            },
            "commit": proofs.commit and {**asdict(proofs.commit), "holds": proofs.commit.holds},
            "rollback": proofs.rollback
            and {**asdict(proofs.rollback), "holds": proofs.rollback.holds},
            "recovery": proofs.recovery
            and {**asdict(proofs.recovery), "holds": proofs.recovery.holds},
            "spans": dict(self.spans),
            "metrics": dict(self.metrics),
            "sound": self.sound,
        }


def summed(stats: CacheStats, others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add the figures of the other processes to those of this one's cache."""
    return {
        "hits": {
            level: own + sum(other["hits"][level] for other in others)
            for level, own in stats.hits.items()
        },
        **{
            name: getattr(stats, name) + sum(other[name] for other in others)
            for name in ("stale", "misses", "loads", "coalesced")
        },
    }
