"""How many hits each order of eviction gets, on traces made here and on real ones.

Each trace is replayed through a memory tier, at three sizes and by each policy, from an empty cache
on, every request counted. "of OPT" is the mean over all cells of the hits divided by those of
Belady's order, which knows the future. `--traces FOLDER` adds real traces (a key per line, gzip) to
those that are made; where the folder does not exist, they are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from pathlib import Path
from time import perf_counter

from _report import print_table
from _traces import NAMES, Trace, made, read

from tiercache.cli.simulate.command import POLICIES
from tiercache.cli.simulate.replay import replay

TRACES = Path(__file__).parents[2] / "shared" / "traces"
SHARES = (0.01, 0.05, 0.2)
"""Sizes of a cache for a real trace, as parts of its keys."""
QUICK = 20_000


def best_possible(keys: Sequence[str], size: int) -> float:
    """Return the hits in per cent of an order that evicts what is asked for again the latest."""
    upcoming, last = [len(keys)] * len(keys), dict[str, int]()
    for at in range(len(keys) - 1, -1, -1):
        upcoming[at] = last.get(keys[at], len(keys) + at)
        last[keys[at]] = at
    held, queue, hits = dict[str, int](), list[tuple[int, str]](), 0
    for key, then in zip(keys, upcoming, strict=True):
        if key in held:
            hits += 1
        elif len(held) == size:
            while True:
                latest, victim = heappop(queue)
                if held.get(victim) == -latest:
                    break
            del held[victim]
        held[key] = then
        heappush(queue, (-then, key))
    return 100 * hits / len(keys)


def traces(folder: Path, most: int | None) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """Yield name, keys and sizes: first those made here, then those of the folder."""
    for name in NAMES:
        trace: Trace = made(name)
        yield name, [str(key) for key in trace.keys[:most]], trace.sizes
    for path in sorted(folder.glob("*.gz")) if folder.is_dir() else ():
        keys = read(path)[:most]
        unique = len(set(keys))
        yield path.name.split(".")[0], keys, tuple(max(int(unique * part), 1) for part in SHARES)


def measured(keys: list[str], size: int, policy: str) -> dict[str, float]:
    """Replay once; return the hits in per cent, and the microseconds of a request."""
    began = perf_counter()
    hits = replay(keys, policy, size, lambda _: None)
    return {"hits": hits, "microseconds": (perf_counter() - began) / len(keys) * 1e6}


def main() -> None:
    """Replay, print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, default=TRACES, help="a folder of real traces")
    parser.add_argument("--calls", type=int, help="requests taken of each trace (default: all)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} requests of each trace")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    given = parser.parse_args()
    most = given.calls or (QUICK if given.quick else None)
    cells: list[dict[str, object]] = []
    lines: list[list[str]] = []
    shares: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for name, keys, sizes in traces(given.traces, most):
        for size in sizes:
            optimum = best_possible(keys, size)
            found = {policy: measured(keys, size, policy) for policy in POLICIES}
            hits = [found[policy]["hits"] for policy in POLICIES]
            for policy, its in zip(POLICIES, hits, strict=True):
                shares[policy].append(its / optimum if optimum else 1.0)
            cells.append({"trace": name, "size": size, "optimum": optimum, "policies": found})
            lines.append([name, f"{size:,}", *(f"{each:.2f}" for each in [*hits, optimum])])
    means = {policy: sum(values) / len(values) for policy, values in shares.items()}
    lines.append(["of OPT", "", *(f"{means[policy]:.3f}" for policy in POLICIES), "1"])
    print_table("Hits in per cent", ["trace", "size", *POLICIES, "OPT"], lines)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        document = {"benchmark": "eviction", "of optimum": means, "cells": cells}
        given.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
