"""What a miss costs: look, call a trivial function, keep its result, let an old one go.

Every call asks for what nobody has asked for before, in a cache that is full; the processor's time.
cachetools with a lock does not hold it while it loads, so that two threads load the same; cachebox
holds one per key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count, islice
from threading import RLock

import cachebox
import cachetools
from _bars import Bar, at_most
from _l1 import BASE, PLAIN, TEMPLATE, TTL, Decorator, names
from _measure import (
    PROCESSOR,
    Sample,
    async_loop_of,
    interleave,
    interleave_async,
    loop_of,
)
from _options import options
from _report import save, show, show_bars

from tiercache import Cache, MemoryTier

HELD = 1_000
TEMPLATED, CACHETOOLS = "tiercache, key=", "cachetools"
SYNC, ASYNC = "sync", "async"


class Fresh:
    """Numbers that were never there before, so many at a time."""

    def __init__(self, calls: int) -> None:
        self._numbers = count()
        self._calls = calls

    def __iter__(self) -> Iterator[int]:
        return islice(self._numbers, self._calls)


def decorators(cache: Cache, *, is_async: bool) -> dict[str, Decorator]:
    """Return the contenders; each cache holds a thousand entries."""
    wraps: dict[str, Decorator] = {
        BASE: cache.cached(ttl=TTL),
        TEMPLATED: cache.cached(ttl=TTL, **TEMPLATE.options),
        "cachebox": cachebox.cached(cachebox.TTLCache(HELD, TTL)),
    }
    if not is_async:
        store = cachetools.TTLCache(HELD, TTL)
        wraps[CACHETOOLS] = cachetools.cached(store)
        wraps["cachetools + lock"] = cachetools.cached(cachetools.TTLCache(HELD, TTL), lock=RLock())
    return wraps


def measure(calls: int, rounds: int) -> list[Sample]:
    """Fill by calls of plain functions."""
    with Cache(MemoryTier(max_entries=HELD)) as cache:
        contenders = {
            name: loop_of(
                PLAIN.call,
                PLAIN.variable,
                Fresh(calls),
                clock=PROCESSOR,
                **names(PLAIN, wrap, is_async=False),
            )
            for name, wrap in decorators(cache, is_async=False).items()
        }
        return interleave(contenders, calls, rounds)


async def measure_async(calls: int, rounds: int) -> list[Sample]:
    """Fill by calls of coroutine functions, one after the other."""
    async with Cache(MemoryTier(max_entries=HELD)) as cache:
        contenders = {
            name: async_loop_of(
                PLAIN.call,
                PLAIN.variable,
                Fresh(calls),
                clock=PROCESSOR,
                **names(PLAIN, wrap, is_async=True),
            )
            for name, wrap in decorators(cache, is_async=True).items()
        }
        return await interleave_async(contenders, calls, rounds)


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = {sample.name: sample for sample in results[SYNC]}
    return [
        at_most("miss + fill", 1.0, found[BASE].ratio_to(found[CACHETOOLS]), "of cachetools TTL")
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=1_000, rounds=30)
    results = {
        SYNC: measure(arguments.calls, arguments.rounds),
        ASYNC: asyncio.run(measure_async(arguments.calls, arguments.rounds)),
    }
    judged = bars(results)
    show("Miss and fill: median per call, and as a multiple of tiercache's", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "entries": HELD}
        save(arguments.json, "l1_fill", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
