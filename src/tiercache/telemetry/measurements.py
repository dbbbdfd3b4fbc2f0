"""From a cache's figures to the measurements of each observable instrument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from tiercache.telemetry.observer import Figures

Measurement: TypeAlias = tuple[int, dict[str, str]]
"""A value, and its attributes besides the cache's name."""

CIRCUIT_STATES: Final = ("closed", "open", "half_open")


def requests(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.requests``."""
    counters = figures.counters()
    hits = {"l1": counters.l1, "l2": counters.l2, "l3": counters.l3}
    for tier in figures.tiers():
        yield hits[tier.level], {"tiercache.result": "hit", "tiercache.tier": tier.level}
    yield counters.stale, {"tiercache.result": "stale"}
    yield counters.misses, {"tiercache.result": "miss"}
    yield counters.bypassed, {"tiercache.result": "bypass"}


def lookups(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.tier.lookups``; L1 can neither be skipped nor fail."""
    for tier in figures.tiers():
        asked = tier.counters
        results = {"hit": asked.hits, "miss": asked.misses}
        if tier.level != "l1":
            results |= {"skipped": asked.skipped, "error": asked.errors}
        for result, value in results.items():
            yield value, {"tiercache.tier": tier.level, "tiercache.tier.result": result}


def coalesced(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.coalesced_requests``."""
    yield figures.counters().coalesced, {"tiercache.lock.scope": "process"}
    yield figures.coalesced_cluster, {"tiercache.lock.scope": "cluster"}


def evictions(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.evictions``."""
    for reason, value in figures.tally.evictions.items():
        yield value, {"tiercache.eviction.reason": reason}


def invalidations(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.invalidations``."""
    for source, value in figures.tally.invalidations.items():
        yield value, {"tiercache.invalidation.source": source}


def entry_count(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.entry.count``."""
    for tier in figures.tiers():
        if (entries := tier.entries) is not None:
            yield entries[0], {"tiercache.tier": tier.level}


def entry_limit(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.entry.limit``."""
    for tier in figures.tiers():
        if (entries := tier.entries) is not None and entries[1] is not None:
            yield entries[1], {"tiercache.tier": tier.level}


def memory_usage(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.memory.usage``."""
    for tier in figures.tiers():
        if (memory := tier.memory) is not None:
            yield memory[0], {"tiercache.tier": tier.level}


def memory_limit(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.memory.limit``."""
    for tier in figures.tiers():
        if (memory := tier.memory) is not None and memory[1] is not None:
            yield memory[1], {"tiercache.tier": tier.level}


def io(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.io``; nothing travels to L1."""
    for tier in figures.tiers():
        if tier.level != "l1":
            moved = {"read": tier.counters.bytes_read, "write": tier.counters.bytes_written}
            for direction, value in moved.items():
                yield value, {"tiercache.tier": tier.level, "tiercache.io.direction": direction}


def circuit(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.circuit_breaker.state``: 1 for the state it is in, 0 for the others."""
    for tier in figures.tiers():
        if (current := tier.circuit) is not None:
            for state in CIRCUIT_STATES:
                yield (
                    int(state == current),
                    {"tiercache.tier": tier.level, "tiercache.circuit_breaker.state": state},
                )


def bus_connected(figures: Figures) -> Iterator[Measurement]:
    """Measure ``tiercache.bus.connected``."""
    if (connected := figures.bus_connected) is not None:
        yield int(connected), {}


MEASURES: Final[Mapping[str, Callable[[Figures], Iterator[Measurement]]]] = {
    "tiercache.requests": requests,
    "tiercache.tier.lookups": lookups,
    "tiercache.coalesced_requests": coalesced,
    "tiercache.evictions": evictions,
    "tiercache.invalidations": invalidations,
    "tiercache.entry.count": entry_count,
    "tiercache.entry.limit": entry_limit,
    "tiercache.memory.usage": memory_usage,
    "tiercache.memory.limit": memory_limit,
    "tiercache.io": io,
    "tiercache.circuit_breaker.state": circuit,
    "tiercache.bus.connected": bus_connected,
}
"""How each observable instrument is measured."""
