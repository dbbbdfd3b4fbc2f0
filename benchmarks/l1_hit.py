"""What a hit in memory costs through the decorator, beside the libraries that do only that.

Each scenario asks for 1,024 entries in turn, all of them held. The plain function is what is left
when nothing is cached; it does no work. `functools.lru_cache` has neither ttl nor async and is
written in C: it marks what is possible. The rivals take 1, 1.0 and True for one key; "cachebox
typed" is cachebox told to tell them apart, as tiercache always does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from textwrap import indent
from threading import RLock
from typing import Any

import cachebox
import cachetools
from _measure import Sample, async_loop_of, interleave, interleave_async, loop_of
from _options import options
from _report import save, show

from tiercache import Cache, MemoryTier

IDS = 1024
TTL = 3600
BASE = "tiercache"

Decorator = Callable[[Any], Any]


@dataclass(frozen=True)
class Scenario:
    """How the function looks, how it is called, and what tiercache is told besides."""

    name: str
    parameters: str
    call: str
    options: Mapping[str, Any]
    variable: str = "i"
    keyed: bool = False


SCENARIOS = (
    Scenario("one argument", "user_id", "f(i)", {}),
    Scenario("two arguments", "user_id, limit", "f(i, 10)", {}),
    Scenario("keyword argument", "user_id", "f(user_id=i)", {}),
    Scenario("default argument", "user_id, limit=10", "f(i)", {}),
    Scenario("method, by instance", "self, user_id", "owner.f(i)", {}),
    Scenario("method, by __cache_key__", "self, user_id", "owner.f(i)", {}, keyed=True),
    Scenario("key template", "user_id", "f(i)", {"key": "user:{user_id}"}),
    Scenario("two tags", "user_id", "f(i)", {"tags": ["users", "user:{user_id}"]}),
    Scenario("text argument", "user_id", "f(s)", {}, variable="s"),
)


def names(scenario: Scenario, wrap: Decorator, *, is_async: bool) -> dict[str, Any]:
    """Return what the scenario's call refers to: a new function, or an object that has it."""
    source = (
        "@wrap\n"
        f"{'async ' if is_async else ''}def f({scenario.parameters}):\n"
        "    return ('user', user_id)\n"
    )
    if scenario.call.startswith("owner"):
        key = "__cache_key__ = 'owner'\n" if scenario.keyed else ""
        source = f"class Owner:\n{indent(key + source, '    ')}owner = Owner()\n"
    scope: dict[str, Any] = {"__name__": "benchmarks.l1_hit", "wrap": wrap}
    exec(source, scope)
    return scope


def decorators(
    cache: Cache, scenario: Scenario, *, is_async: bool
) -> Iterator[tuple[str, Decorator]]:
    """Yield the contenders: the plain function last."""
    yield BASE, cache.cached(ttl=TTL, **scenario.options)
    yield "cachebox", cachebox.cached(cachebox.TTLCache(IDS * 2, TTL))
    yield (
        "cachebox typed",
        cachebox.cached(cachebox.TTLCache(IDS * 2, TTL), key_maker=cachebox.make_typed_key),
    )
    if not is_async:
        yield (
            "cachetools + lock",
            cachetools.cached(cachetools.TTLCache(IDS * 2, TTL), lock=RLock()),
        )
        yield "lru_cache", lru_cache(maxsize=IDS * 2)
    yield "plain", lambda plain: plain


def items(scenario: Scenario, calls: int) -> list[Any]:
    """Return what the variable of the scenario's call runs through."""
    ids: list[Any] = list(range(IDS))
    if scenario.variable == "s":
        ids = [f"user-{number}" for number in ids]
    return (ids * (calls // IDS + 1))[:calls]


def check(name: str, before: int, after: int) -> None:
    """Refuse to call something a hit that was none."""
    if before != after:
        raise SystemExit(f"{name}: {after - before} calls were not hits")


def measure(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Run the scenarios of plain functions."""
    results: dict[str, list[Sample]] = {}
    for scenario in SCENARIOS:
        with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
            asked = items(scenario, calls)
            contenders = {
                name: loop_of(
                    scenario.call,
                    scenario.variable,
                    asked,
                    **names(scenario, wrap, is_async=False),
                )
                for name, wrap in decorators(cache, scenario, is_async=False)
            }
            contenders[BASE]()
            loads = cache.stats().loads
            results[scenario.name] = interleave(contenders, calls, rounds)
            check(scenario.name, loads, cache.stats().loads)
    return results


async def measure_async(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Run the scenarios of coroutine functions, all inside one task."""
    results: dict[str, list[Sample]] = {}
    for scenario in SCENARIOS:
        async with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
            asked = items(scenario, calls)
            contenders = {
                name: async_loop_of(
                    scenario.call,
                    scenario.variable,
                    asked,
                    **names(scenario, wrap, is_async=True),
                )
                for name, wrap in decorators(cache, scenario, is_async=True)
            }
            await contenders[BASE]()
            loads = cache.stats().loads
            results[scenario.name] = await interleave_async(contenders, calls, rounds)
            check(scenario.name, loads, cache.stats().loads)
    return results


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=50_000, rounds=15)
    sync = measure(arguments.calls, arguments.rounds)
    coroutines = asyncio.run(measure_async(arguments.calls, arguments.rounds))
    results = {f"sync, {name}": samples for name, samples in sync.items()}
    results |= {f"async, {name}": samples for name, samples in coroutines.items()}
    show("A hit in L1: median per call, and as a multiple of tiercache's", results, BASE)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "entries": IDS}
        save(arguments.json, "l1_hit", results, BASE, settings)


if __name__ == "__main__":
    main()
