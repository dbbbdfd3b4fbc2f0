"""Counters and the snapshots made of them."""

import dataclasses
import gc
from collections.abc import Callable

import pytest

from tiercache import Cache, CacheStats
from tiercache.figures import CacheFigures
from tiercache.stats import LEVELS, Counters, Tally


def test_counters_add_up() -> None:
    """The total of several counters is the sum of each figure."""
    one, two = Counters(), Counters()
    for number, name in enumerate(Counters.__slots__):
        setattr(one, name, number)
        setattr(two, name, 100)
    total = Counters.total([one, two])
    assert [getattr(total, name) for name in Counters.__slots__] == [
        100 + number for number in range(len(Counters.__slots__))
    ]


def test_levels() -> None:
    """A hit counts for its level, and the levels go by the kind of tier."""
    counters = Counters()
    for level in LEVELS.values():
        counters.hit(level)
    assert dict(CacheStats.of(counters).hits) == {"l1": 1, "l2": 1, "l3": 1}


def test_hit_ratio() -> None:
    """Stale answers count as found; nothing asked means 0.0."""
    assert CacheStats({}).hit_ratio == 0.0
    assert CacheStats({"l1": 2, "l2": 1}, misses=4, stale=1).hit_ratio == 0.5


def test_a_snapshot_is_frozen() -> None:
    """What was handed out does not change any more."""
    counters, tally = Counters(), Tally()
    tally.evicted("capacity")
    tally.invalidations["bus"] += 2
    stats = CacheStats.of(counters, tally=tally)
    assert (stats.evictions, stats.invalidations) == (1, 2)
    counters.l1 += 1
    tally.evicted("expired")
    assert stats.hits["l1"] == 0
    assert stats.evictions == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.misses = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.hits["l1"] = 5  # type: ignore[index]


def test_figures_of_a_function_that_is_gone() -> None:
    """The figures of a cache keep what a function counted after the function is collected."""

    class Owner:
        pass

    figures = CacheFigures("x", None, None)
    owner, counters = Owner(), Counters()
    figures.adopt(owner, counters)
    figures.adopt(owner, counters)  # once is enough
    counters.loads = 3
    figures.own.loads = 1
    assert figures.counters().loads == 4
    del owner
    gc.collect()
    assert figures.counters().loads == 4
    assert figures.bus_connected is None


def test_memory_figures(make_cache: Callable[..., Cache]) -> None:
    """What telemetry shows of L1 follows from what was asked of the cache."""
    cache = make_cache()
    cache.sync.set("k", 1)
    cache.sync.get_many(["k", "absent"])
    [memory] = cache._figures.tiers()
    assert (memory.level, memory.counters.hits, memory.counters.misses) == ("l1", 1, 1)
    assert memory.entries is not None
    assert memory.entries[0] == 1
