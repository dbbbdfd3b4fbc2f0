"""Measure rivals side by side: interleaved rounds, medians, and ratios taken within each round.

On a machine with neighbours the speed drifts by tens of per cent within seconds. So each round
runs every contender once, in an order that turns from round to round, and two contenders are
compared by the median of their ratios within the rounds, not by the ratio of two medians.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import Any

Timed = Callable[[], int]
"""Runs one round and returns its nanoseconds."""
AsyncTimed = Callable[[], Awaitable[int]]


@dataclass(slots=True)
class Sample:
    """The rounds of one contender, in nanoseconds per call."""

    name: str
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Nanoseconds per call."""
        return median(self.rounds)

    def ratio_to(self, other: Sample) -> float:
        """How many times the other's time it takes: the median over the rounds."""
        return median(mine / its for mine, its in zip(self.rounds, other.rounds, strict=True))


Clock = Callable[[], int]
WALL: Clock = perf_counter_ns
"""The time on the wall: for what waits."""
PROCESSOR: Clock = thread_time_ns
"""The processor's time in this thread: for what only computes, so that nobody who takes the
processor away for a while is counted in."""


def loop_of(
    call: str, variables: str, items: Iterable[object], *, clock: Clock = WALL, **names: object
) -> Timed:
    """Return a round of ``call`` for each item, bound to ``variables``, inside one compiled loop.

    A loop around a lambda would add the cost of a second call to the first.
    """
    source = f"""
def timed():
    began = clock()
    for {variables} in items:
        {call}
    return clock() - began
"""
    return _compiled(source, items, clock, names)  # type: ignore[no-any-return]


def async_loop_of(
    call: str, variables: str, items: Iterable[object], *, clock: Clock = WALL, **names: object
) -> AsyncTimed:
    """Do the same for a call that is awaited, many times in a row inside one task."""
    source = f"""
async def timed():
    began = clock()
    for {variables} in items:
        await {call}
    return clock() - began
"""
    return _compiled(source, items, clock, names)  # type: ignore[no-any-return]


def _compiled(
    source: str, items: Iterable[object], clock: Clock, names: Mapping[str, object]
) -> Any:
    # Names that are assigned inside the function would be fast locals; globals are what callers of
    # a decorated function use, so that is what is measured.
    scope: dict[str, Any] = {**names, "items": items, "clock": clock}
    exec(source, scope)
    return scope["timed"]


def interleave(contenders: Mapping[str, Timed], calls: int, rounds: int) -> list[Sample]:
    """Run all contenders in each round, after one that does not count."""
    samples = [Sample(name) for name in contenders]
    with _frozen():
        for number in range(-1, rounds):
            for sample in _turned(samples, number):
                with _Undisturbed():
                    spent = contenders[sample.name]()
                if number >= 0:
                    sample.rounds.append(spent / calls)
    return samples


async def interleave_async(
    contenders: Mapping[str, AsyncTimed], calls: int, rounds: int
) -> list[Sample]:
    """Do the same on the running loop."""
    samples = [Sample(name) for name in contenders]
    with _frozen():
        for number in range(-1, rounds):
            for sample in _turned(samples, number):
                with _Undisturbed():
                    spent = await contenders[sample.name]()
                if number >= 0:
                    sample.rounds.append(spent / calls)
            await asyncio.sleep(0)
    return samples


def _turned(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    start = number % len(samples)
    return [*samples[start:], *samples[:start]]


@contextmanager
def _frozen() -> Iterator[None]:
    """Keep what is there already out of the collections between the rounds."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Undisturbed:
    """Keep the garbage collector out of a round; it runs before."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *exc_info: object) -> None:
        gc.enable()
