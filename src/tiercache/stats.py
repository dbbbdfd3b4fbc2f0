"""Counting: plain integers where things happen, one frozen snapshot for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"memory": "l1", "redis": "l2", "database": "l3"}
)
"""The level of a tier, by its kind; the same in statistics, spans and metrics."""


class Counters:
    """What happened to requests, counted without a lock.

    ``counters.l1 += 1`` is atomic under the GIL of CPython 3.10 and later: the interpreter
    switches threads only at calls and backward jumps, and the statement has neither.
    """

    __slots__ = (
        "bypassed",
        "coalesced",
        "coalesced_elsewhere",
        "l1",
        "l2",
        "l3",
        "load_errors",
        "loads",
        "misses",
        "stale",
    )

    def __init__(self) -> None:
        self.l1 = 0
        self.l2 = 0
        self.l3 = 0
        self.misses = 0
        self.loads = 0
        self.load_errors = 0
        self.stale = 0
        self.coalesced = 0
        self.coalesced_elsewhere = 0
        self.bypassed = 0

    def add(self, other: Counters) -> None:
        """Add the other's figures to these."""
        for name in Counters.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def hit(self, level: str) -> None:
        """Count a hit in ``l1``, ``l2`` or ``l3``."""
        setattr(self, level, getattr(self, level) + 1)

    @classmethod
    def total(cls, parts: Iterable[Counters]) -> Counters:
        """Return the sum of several."""
        result = cls()
        for part in parts:
            result.add(part)
        return result


class TierCounters:
    """What a tier was asked, and how much went over its wire (bytes)."""

    __slots__ = ("bytes_read", "bytes_written", "errors", "hits", "misses", "skipped", "unreadable")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.skipped = 0
        self.errors = 0
        self.unreadable = 0
        self.bytes_read = 0
        self.bytes_written = 0


class Tally:
    """Evictions by reason and invalidations by source, for one cache."""

    __slots__ = ("evictions", "invalidations")

    def __init__(self) -> None:
        self.evictions = {"capacity": 0, "expired": 0, "rejected": 0}
        self.invalidations = {"local": 0, "bus": 0, "outbox": 0, "gap": 0}

    def evicted(self, reason: str) -> None:
        """Count one eviction; called under the cache's lock."""
        self.evictions[reason] += 1


@dataclass(frozen=True, slots=True)
class CacheStats:
    """One snapshot of a cache, or of one function of it.

    ``hits`` maps ``l1``, ``l2`` and ``l3`` to fresh hits; ``stale`` counts values served past their
    ttl; ``misses`` the requests that no tier answered; ``loads`` and ``load_errors`` the calls of
    loaders; ``coalesced`` the requests that joined a load of somebody else, in this process or
    another. ``evictions`` and ``invalidations`` belong to the cache and are zero for one function.
    """

    hits: Mapping[str, int] = field(hash=False)
    misses: int = 0
    loads: int = 0
    load_errors: int = 0
    stale: int = 0
    coalesced: int = 0
    evictions: int = 0
    invalidations: int = 0

    @property
    def hit_ratio(self) -> float:
        """Share of requests that a tier answered, fresh or stale; 0.0 before the first."""
        found = sum(self.hits.values()) + self.stale
        asked = found + self.misses
        return found / asked if asked else 0.0

    @classmethod
    def of(cls, counters: Counters, *, tally: Tally | None = None) -> CacheStats:
        """Freeze the counters, with the cache's own tally where there is one."""
        return cls(
            hits=MappingProxyType({"l1": counters.l1, "l2": counters.l2, "l3": counters.l3}),
            misses=counters.misses,
            loads=counters.loads,
            load_errors=counters.load_errors,
            stale=counters.stale,
            coalesced=counters.coalesced + counters.coalesced_elsewhere,
            evictions=sum(tally.evictions.values()) if tally else 0,
            invalidations=sum(tally.invalidations.values()) if tally else 0,
        )
