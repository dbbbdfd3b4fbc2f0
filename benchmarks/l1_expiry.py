"""How late do expired entries leave memory, and for how long does that hold the event loop up?

A million entries (``--calls``) expire evenly within five seconds, while a task on the loop sleeps
for a millisecond at a time: what a sleep takes longer is a pause. The same loop with nothing to
sweep says what of that is the machine's.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from _bars import Bar, at_most
from _measure import Sample
from _options import options
from _report import print_table, save, show_bars

from tiercache import Cache, MemoryTier
from tiercache.entry import Slot

BASE, IDLE = "tiercache", "nothing to sweep"
SPREAD = 5.0
"""Seconds within which all entries expire."""

NAP = 0.001
SLACK = 3.0
"""Seconds after the last expiry at which a round is given up."""

FILLING = 12e-6
"""Seconds that one entry takes to be put in, at most."""


class Found(NamedTuple):
    """What one round showed: seconds an entry was late at most, and every pause in seconds."""

    late: float
    pauses: list[float]

    def pause(self, share: float) -> float:
        """Return the pause that so many did not exceed, in milliseconds."""
        ordered = sorted(self.pauses)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3


async def watch(entries: int) -> Found:
    """Fill a cache, and watch it empty itself."""
    tier = MemoryTier(max_entries=2 * entries + 1)
    cache = Cache(tier)
    begin = monotonic() + 1 + entries * FILLING
    keys = [f"user:{number}:10" for number in range(entries)]
    for number, key in enumerate(keys):  # not opened yet: nobody else has the tier
        end = begin + SPREAD * number / entries
        tier.store(Slot(key, None, refresh_at=end, expires=end, stale_until=end))
    gc.collect()
    gc.freeze()
    async with cache:
        await asyncio.sleep(max(begin - monotonic() - 0.1, 0.0))
        place, late = 0, 0.0

        def look(now: float) -> bool:
            nonlocal place, late
            while place < entries and tier.lookup(keys[place]) is None:
                place += 1
            if place < entries:
                late = max(late, now - begin - SPREAD * place / entries)
            return place < entries

        pauses = await nap(look, begin + SPREAD + SLACK)
    gc.unfreeze()
    return Found(late, pauses)


async def nap(goes_on: Callable[[float], bool], end: float) -> list[float]:
    """Sleep a millisecond at a time; return by how much each took longer."""
    pauses = []
    last = monotonic()
    while last < end:
        await asyncio.sleep(NAP)
        now = monotonic()
        pauses.append(now - last - NAP)
        if not goes_on(now):
            break
        last = monotonic()
    return pauses


async def idle() -> Found:
    """Watch the loop with an empty cache beside it."""
    async with Cache(MemoryTier()):
        return Found(0.0, await nap(lambda now: True, monotonic() + SPREAD))


def bars(found: list[Found]) -> list[Bar]:
    """Hold the results against what is asked; the median round counts."""
    late = Sample("", [each.late for each in found]).median
    worst = Sample("", [each.pause(1.0) for each in found]).median
    return [
        at_most("expired entries leave", 1.0, late, "s after their time"),
        at_most("sweeping, the loop's longest pause", 5.0, worst, "ms"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=1_000_000, rounds=3)
    found: dict[str, list[Found]] = {BASE: [], IDLE: []}
    for _ in range(arguments.rounds):
        found[BASE].append(asyncio.run(watch(arguments.calls)))
        found[IDLE].append(asyncio.run(idle()))
    print_table(
        f"{arguments.calls:,} entries that expire within {SPREAD:g} s: median of the rounds",
        ["", "late by at most, s", "longest pause, ms", "99.9 %", "99 %"],
        [
            [name, *(f"{Sample('', each).median:.2f}" for each in _columns(rounds))]
            for name, rounds in found.items()
        ],
    )
    judged = bars(found[BASE])
    show_bars(judged)
    if arguments.json is not None:
        settings = {"entries": arguments.calls, "seconds": SPREAD}
        results = {
            "longest pause": [
                Sample(name, [each.pause(1.0) for each in rounds]) for name, rounds in found.items()
            ]
        }
        save(arguments.json, "l1_expiry", results, BASE, settings, judged, unit="ms")


def _columns(rounds: list[Found]) -> list[list[float]]:
    return [
        [each.late for each in rounds],
        *([each.pause(share) for each in rounds] for share in (1.0, 0.999, 0.99)),
    ]


if __name__ == "__main__":
    main()
