"""What a hit in memory costs through the decorator, beside the libraries that do only that.

Each scenario asks for 1,024 entries in turn, all of them held; the processor's time of the thread.
The plain function is what is left when nothing is cached; it does no work. `functools.lru_cache`
has neither ttl nor async and is written in C: it marks what is possible. The rivals take 1, 1.0 and
True for one key; "cachebox typed" is cachebox told to tell them apart, as tiercache always does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from threading import RLock

import cachebox
import cachetools
from _bars import Bar, at_most
from _l1 import (
    BASE,
    DEFAULT,
    IDS,
    KEYWORDS,
    METHOD,
    METHOD_KEYED,
    ONE,
    PLAIN,
    TAGS,
    TEMPLATE,
    TEXT,
    TTL,
    Decorator,
    Form,
    check,
    items,
    names,
)
from _measure import PROCESSOR, Sample, async_loop_of, interleave, interleave_async, loop_of
from _options import options
from _report import save, show, show_bars

from tiercache import Cache, MemoryTier

FORMS = (ONE, PLAIN, KEYWORDS, DEFAULT, METHOD, METHOD_KEYED, TEMPLATE, TAGS, TEXT)
CACHEBOX, CACHETOOLS, CASHEWS = "cachebox", "cachetools + lock", "cashews"
SLOW = 100
"""How many times fewer calls those are given that take a hundred times as long."""


def decorators(cache: Cache, form: Form, *, is_async: bool) -> Iterator[tuple[str, Decorator]]:
    """Yield the contenders: the plain function last."""
    yield BASE, cache.cached(ttl=TTL, **form.options)
    yield CACHEBOX, cachebox.cached(cachebox.TTLCache(IDS * 2, TTL))
    yield (
        "cachebox typed",
        cachebox.cached(cachebox.TTLCache(IDS * 2, TTL), key_maker=cachebox.make_typed_key),
    )
    if not is_async:
        yield CACHETOOLS, cachetools.cached(cachetools.TTLCache(IDS * 2, TTL), lock=RLock())
        yield "lru_cache", lru_cache(maxsize=IDS * 2)
    yield "plain", lambda plain: plain


def measure(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Run the scenarios of plain functions."""
    results: dict[str, list[Sample]] = {}
    for form in FORMS:
        with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
            asked = items(form, calls)
            contenders = {
                name: loop_of(
                    form.call,
                    form.variable,
                    asked,
                    clock=PROCESSOR,
                    **names(form, wrap, is_async=False),
                )
                for name, wrap in decorators(cache, form, is_async=False)
            }
            contenders[BASE]()
            loads = cache.stats().loads
            results[form.name] = interleave(contenders, calls, rounds)
            check(form.name, loads, cache.stats().loads)
    return results


async def measure_async(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Run the scenarios of coroutine functions, all inside one task."""
    results: dict[str, list[Sample]] = {}
    for form in FORMS:
        async with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
            asked = items(form, calls)
            contenders = {
                name: async_loop_of(
                    form.call,
                    form.variable,
                    asked,
                    clock=PROCESSOR,
                    **names(form, wrap, is_async=True),
                )
                for name, wrap in decorators(cache, form, is_async=True)
            }
            await contenders[BASE]()
            loads = cache.stats().loads
            results[form.name] = await interleave_async(contenders, calls, rounds)
            check(form.name, loads, cache.stats().loads)
    return results


async def measure_slow(calls: int, rounds: int) -> list[Sample]:
    """Measure those that take a hundred times as long, with fewer calls each."""
    import aiocache
    from cashews import Cache as Cashews
    from theine import Memoize

    cashews = Cashews()
    cashews.setup("mem://")

    def theine(function: object) -> object:
        memoized = Memoize(IDS * 2, timedelta(seconds=TTL))(function)
        memoized.key(lambda user_id, limit: f"{user_id}:{limit}")
        return memoized

    calls = max(calls // SLOW, IDS)
    rivals: dict[str, Decorator] = {
        CASHEWS: cashews(ttl=TTL, key="user:{user_id}:{limit}"),
        "aiocache": aiocache.cached(ttl=TTL),
        "theine": theine,
    }
    async with Cache(MemoryTier(max_entries=IDS * 2)) as cache:
        rivals = {BASE: cache.cached(ttl=TTL), **rivals}
        contenders = {
            name: async_loop_of(
                PLAIN.call,
                PLAIN.variable,
                items(PLAIN, calls),
                clock=PROCESSOR,
                **names(PLAIN, wrap, is_async=True),
            )
            for name, wrap in rivals.items()
        }
        for contender in contenders.values():
            await contender()
        results = await interleave_async(contenders, calls, rounds)
    await cashews.close()
    return results


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    sync, later, slow = (
        {sample.name: sample for sample in results[name]}
        for name in (f"sync, {PLAIN.name}", f"async, {PLAIN.name}", "async, beside others")
    )
    return [
        at_most("sync hit", 0.75, sync[BASE].ratio_to(sync[CACHEBOX]), "of cachebox TTL"),
        at_most("sync hit", 0.4, sync[BASE].ratio_to(sync[CACHETOOLS]), "of cachetools TTL + lock"),
        at_most("async hit", 0.6, later[BASE].ratio_to(later[CACHEBOX]), "of cachebox TTL"),
        at_most("async hit", 0.03, slow[BASE].ratio_to(slow[CASHEWS]), "of cashews"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=20_000, rounds=25)
    sync = measure(arguments.calls, arguments.rounds)
    coroutines = asyncio.run(measure_async(arguments.calls, arguments.rounds))
    results = {f"sync, {name}": samples for name, samples in sync.items()}
    results |= {f"async, {name}": samples for name, samples in coroutines.items()}
    others = asyncio.run(measure_slow(arguments.calls, arguments.rounds))
    judged = bars(results | {"async, beside others": others})
    title = "A hit in L1: median per call, and as a multiple of tiercache's"
    show(title, results, BASE)
    show(title, {"async, beside others": others}, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "entries": IDS}
        results["async, beside others"] = others
        save(arguments.json, "l1_hit", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
