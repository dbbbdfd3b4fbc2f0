"""What an entry takes in memory beyond its value, and beyond the arguments that it is kept under.

Counted by `tracemalloc`, which sees every block that Python allocates (cachebox keeps its table in
Rust, out of its sight). The values and arguments exist before the counting begins.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from threading import RLock
from typing import Any

import cachebox
import cachetools
from _bars import Bar, at_most
from _l1 import BASE, TTL
from _measure import Sample
from _options import options
from _report import print_table, save, show_bars

from tiercache import Cache, MemoryTier

TEMPLATED, TAGGED, CACHETOOLS = "tiercache, key=", "tiercache, two tags", "cachetools TTL"
SCENARIO = "bytes per entry"


def contenders(entries: int) -> dict[str, Callable[[], Any]]:
    """Return what makes a decorator for each; a new cache every time."""

    def tier() -> Cache:
        return Cache(MemoryTier(max_entries=entries * 2))

    return {
        BASE: lambda: tier().cached(ttl=TTL),
        TEMPLATED: lambda: tier().cached(ttl=TTL, key="user:{user_id}:{limit}"),
        TAGGED: lambda: tier().cached(ttl=TTL, tags=["users", "user:{user_id}"]),
        CACHETOOLS: lambda: cachetools.cached(cachetools.TTLCache(entries * 2, TTL), lock=RLock()),
        "cachetools TTL, typed": lambda: cachetools.cached(
            cachetools.TTLCache(entries * 2, TTL), key=cachetools.keys.typedkey
        ),
        "cachebox TTL (Rust: its objects alone)": lambda: cachebox.cached(
            cachebox.TTLCache(entries * 2, TTL)
        ),
    }


def bytes_per_entry(decorate: Any, entries: int) -> float:
    """Fill a cache with so many entries, and see what it has allocated."""
    ids = list(range(1_000, 1_000 + entries))
    value = object()

    @decorate
    def load(user_id: int, limit: int) -> object:
        return value

    load(0, 10)  # what is allocated once
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in ids:
        load(number, 10)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / entries


def bars(samples: dict[str, Sample]) -> list[Bar]:
    """Hold the results against what is asked."""
    theirs = samples[CACHETOOLS].median
    return [
        at_most("memory per entry", 1.5, samples[BASE].median / theirs, "of cachetools TTL"),
        at_most(
            "memory per entry, key=", 1.5, samples[TEMPLATED].median / theirs, "of cachetools TTL"
        ),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=50_000, rounds=1)
    entries = arguments.calls
    samples = {
        name: Sample(name, [bytes_per_entry(make(), entries)])
        for name, make in contenders(entries).items()
    }
    judged = bars(samples)
    theirs = samples[CACHETOOLS]
    print_table(
        f"Memory beyond value and arguments, {entries:,} entries",
        ["", "bytes per entry", f"of {CACHETOOLS}"],
        [
            [name, f"{sample.median:.0f}", f"{sample.ratio_to(theirs):.2f}"]
            for name, sample in samples.items()
        ],
    )
    show_bars(judged)
    if arguments.json is not None:
        settings = {"entries": entries}
        results = {SCENARIO: list(samples.values())}
        save(arguments.json, "l1_memory", results, BASE, settings, judged, unit=SCENARIO)


if __name__ == "__main__":
    main()
