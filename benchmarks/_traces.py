"""Traces to replay: made here, the same for the same seed, each of a kind that real caches meet.

Every trace is a list of keys in the order of the requests. None of them is fitted to a policy: the
kinds are those of the literature (static popularity, popularity that moves, scans, loops, reuse
that fades, bursts), alone, mixed, and one after the other.
"""

from __future__ import annotations

import gzip
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from random import Random

Keys = Iterator[int]
"""Keys without an end; each kind numbers its own from 0 on."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Keys in the order in which they are asked for, and the cache sizes worth a look."""

    name: str
    keys: list[int]
    sizes: tuple[int, ...]


def zipf(luck: Random, alpha: float, keys: int) -> Keys:
    """Ask for the n-th most popular key with a probability proportional to n ** -alpha."""
    weights = list(accumulate(rank**-alpha for rank in range(1, keys + 1)))
    total = weights[-1]
    names = list(range(keys))
    luck.shuffle(names)
    while True:
        yield names[bisect_left(weights, luck.random() * total)]


def once() -> Keys:
    """Ask for every key a single time."""
    number = 0
    while True:
        yield number
        number += 1


def loop(keys: int) -> Keys:
    """Ask for the same keys in the same order, for ever."""
    while True:
        yield from range(keys)


def moving(luck: Random, alpha: float, keys: int, every: int, changed: int) -> Keys:
    """As `zipf`, but after ``every`` requests so many of the keys, at any rank, give way to new."""
    names = list(range(keys))
    ranks = zipf(luck, alpha, keys)
    fresh = keys
    while True:
        yield from (names[rank] for rank in islice(ranks, every))
        for at in luck.sample(range(keys), changed):
            names[at] = fresh
            fresh += 1


def fading(luck: Random, fresh: float, middle: float, spread: float) -> Keys:
    """Ask for a new key with the probability ``fresh``, else again for one of some time ago.

    How many requests ago is log-normal: ``middle`` is its median, ``spread`` the standard deviation
    of its logarithm.
    """
    past: list[int] = []
    number = 0
    while True:
        back = int(luck.lognormvariate(0.0, spread) * middle)
        if not past or luck.random() < fresh:
            number += 1
            past.append(number)
        else:
            past.append(past[-1 - back % len(past)])
        yield past[-1]


def bursts(luck: Random, mean: float, together: int) -> Keys:
    """Ask for each key a few times in short order, ``together`` keys at once; then never again."""
    number = 0
    active: list[list[int]] = []
    while True:
        while len(active) < together:
            active.append([number, 1 + int(luck.expovariate(1 / mean))])
            number += 1
        at = luck.randrange(together)
        yield active[at][0]
        active[at][1] -= 1
        if not active[at][1]:
            active[at] = active[-1]
            active.pop()


def mixed(luck: Random, *parts: tuple[float, Keys]) -> Keys:
    """Draw each request from one of the parts, by their weights; keys of different parts differ."""
    weights = list(accumulate(weight for weight, _ in parts))
    while True:
        which = bisect_left(weights, luck.random() * weights[-1])
        yield next(parts[which][1]) * len(parts) + which


def scanned(luck: Random, base: Keys, every: int, length: int) -> Keys:
    """Interrupt the base after every so many requests by a run over keys never seen again."""
    fresh = once()
    while True:
        yield from (2 * key for key in islice(base, luck.randrange(every, 2 * every)))
        yield from (2 * key + 1 for key in islice(fresh, length))


def in_turn(*phases: tuple[int, Keys]) -> Keys:
    """Take so many requests from the first, then from the next, and so on, round and round."""
    while True:
        for which, (length, keys) in enumerate(phases):
            yield from (key * len(phases) + which for key in islice(keys, length))


_KINDS: dict[str, tuple[Callable[[Random], Keys], int, tuple[int, ...]]] = {
    "zipf 0.7": (lambda luck: zipf(luck, 0.7, 20_000), 200_000, (200, 1_000, 4_000)),
    "zipf 0.8": (lambda luck: zipf(luck, 0.8, 50_000), 200_000, (500, 2_500, 10_000)),
    "zipf 0.9": (lambda luck: zipf(luck, 0.9, 200_000), 600_000, (2_000, 10_000, 40_000)),
    "zipf 1.0": (lambda luck: zipf(luck, 1.0, 50_000), 200_000, (100, 1_000, 5_000)),
    "zipf 1.2": (lambda luck: zipf(luck, 1.2, 50_000), 200_000, (50, 500, 2_500)),
    "zipf, scans": (
        lambda luck: scanned(luck, zipf(luck, 0.9, 10_000), 4_000, 5_000),
        300_000,
        (200, 1_000, 4_000),
    ),
    "zipf, one-hit wonders": (
        lambda luck: mixed(luck, (1, zipf(luck, 0.9, 20_000)), (1, once())),
        300_000,
        (200, 1_000, 4_000),
    ),
    "loop": (lambda _: loop(5_000), 100_000, (500, 2_500, 4_500)),
    "loops of several lengths": (
        lambda luck: mixed(luck, (4, loop(500)), (3, loop(2_000)), (3, loop(8_000))),
        200_000,
        (400, 1_500, 4_000),
    ),
    "loop and zipf": (
        lambda luck: mixed(luck, (1, loop(10_000)), (1, zipf(luck, 1.0, 10_000))),
        300_000,
        (500, 2_000, 8_000),
    ),
    "hot set moves slowly": (
        lambda luck: moving(luck, 1.0, 10_000, 1_000, 50),
        300_000,
        (200, 1_000, 4_000),
    ),
    "hot set moves at once": (
        lambda luck: moving(luck, 1.0, 5_000, 40_000, 5_000),
        300_000,
        (200, 1_000, 3_000),
    ),
    "reuse fades": (lambda luck: fading(luck, 0.1, 200, 1.5), 200_000, (50, 300, 1_500)),
    "reuse fades slowly": (
        lambda luck: fading(luck, 0.2, 3_000, 2.0),
        300_000,
        (300, 2_000, 8_000),
    ),
    "bursts": (lambda luck: bursts(luck, 4.0, 300), 200_000, (100, 300, 1_000)),
    "bursts over zipf": (
        lambda luck: mixed(luck, (1, bursts(luck, 3.0, 200)), (1, zipf(luck, 0.8, 20_000))),
        300_000,
        (200, 1_000, 4_000),
    ),
    "sessions, loops, scans": (
        lambda luck: mixed(luck, (4, fading(luck, 0.1, 300, 1.5)), (3, loop(4_000)), (2, once())),
        300_000,
        (300, 1_500, 5_000),
    ),
    "in turn: bursts, loop, zipf": (
        lambda luck: in_turn(
            (50_000, bursts(luck, 3.0, 500)),
            (50_000, loop(3_000)),
            (50_000, zipf(luck, 0.9, 20_000)),
        ),
        450_000,
        (300, 1_000, 2_500),
    ),
    "in turn: fading, scan, moving": (
        lambda luck: in_turn(
            (30_000, fading(luck, 0.1, 400, 1.2)),
            (10_000, once()),
            (30_000, moving(luck, 1.1, 5_000, 2_000, 200)),
        ),
        400_000,
        (200, 1_000, 4_000),
    ),
    "large": (
        lambda luck: mixed(luck, (3, zipf(luck, 0.8, 300_000)), (1, once())),
        1_000_000,
        (10_000, 50_000, 100_000),
    ),
}

NAMES = tuple(_KINDS)


def made(name: str, seed: int = 1) -> Trace:
    """Make the trace of that name."""
    keys, length, sizes = _KINDS[name]
    return Trace(name=name, keys=list(islice(keys(Random(f"{seed} {name}")), length)), sizes=sizes)


def read(path: Path) -> list[str]:
    """Read a trace: plain or gzip, a key on each line."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
        return [key for line in lines if (key := line.strip())]
