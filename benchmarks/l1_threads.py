"""Four threads that hit one cache: is any hit lost from the counts, and what is the total worth?

One thread and four, each round with as many calls in all; time on the wall, because under the
interpreter's lock four threads have one processor between them and can only lose by it.
"""

from __future__ import annotations

import sys
import threading
from time import perf_counter_ns

import cachebox
import cachetools
from _bars import Bar, at_least, at_most
from _l1 import BASE, IDS, PLAIN, TTL, Decorator, items, names
from _measure import Sample, Timed, interleave, loop_of
from _options import options
from _report import save, show, show_bars

from tiercache import Cache, MemoryTier

THREADS = 4
SWITCH = 0.0005
"""Seconds between switches: ten times as often as by default, so that races have their chance."""


def crowd(call: Timed) -> Timed:
    """Return a round that four threads share."""

    def timed() -> int:
        start = threading.Barrier(THREADS + 1)
        done: list[int] = []

        def work() -> None:
            start.wait()
            call()
            done.append(perf_counter_ns())

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        start.wait()
        began = perf_counter_ns()
        for thread in threads:
            thread.join()
        return max(done) - began

    return timed


def measure(calls: int, rounds: int) -> tuple[dict[str, list[Sample]], int]:
    """Run both, for each contender; and say how many hits were not counted."""
    with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
        wraps: dict[str, Decorator] = {
            BASE: cache.cached(ttl=TTL),
            "cachebox": cachebox.cached(cachebox.TTLCache(IDS * 2, TTL)),
            "cachetools + lock": cachetools.cached(
                cachetools.TTLCache(IDS * 2, TTL), lock=threading.RLock()
            ),
        }
        contenders: dict[str, Timed] = {}
        for name, wrap in wraps.items():
            scope = names(PLAIN, wrap, is_async=False)
            alone = loop_of(PLAIN.call, PLAIN.variable, items(PLAIN, calls), **scope)
            shared = loop_of(PLAIN.call, PLAIN.variable, items(PLAIN, calls // THREADS), **scope)
            alone()
            contenders[name] = alone
            contenders[f"{name}, {THREADS} threads"] = crowd(shared)
        before = cache.stats().hits["l1"]
        samples = interleave(contenders, calls, rounds)
        counted = cache.stats().hits["l1"] - before
    expected = (rounds + 1) * (calls + calls // THREADS * THREADS)
    return {"hits": samples}, expected - counted


def bars(results: dict[str, list[Sample]], lost: int) -> list[Bar]:
    """Hold the results against what is asked."""
    found = {sample.name: sample for sample in results["hits"]}
    gain = found[BASE].ratio_to(found[f"{BASE}, {THREADS} threads"])
    work = f"{THREADS} threads hitting one cache"
    return [
        at_least(work, 0.9, gain, "of one thread's total"),
        at_most(work, 0, lost, "hits not counted"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=100_000, rounds=20)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    results, lost = measure(arguments.calls, arguments.rounds)
    sys.setswitchinterval(before)
    judged = bars(results, lost)
    show("Hits of one thread and of four: median per call", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "threads": THREADS}
        save(arguments.json, "l1_threads", results, BASE, settings, judged, lost=lost)


if __name__ == "__main__":
    main()
