"""What Redis as the only tier gives, beside redis-py doing no more than GET and decode.

Wall-clock time against a private server. redis-py has pickle to decode with, the quickest that the
standard library offers, and for a crowd a pool that waits instead of raising; tiercache checks the
key, the tags' tokens and the type of what it reads, and its codec executes nothing. In "lockstep"
all tasks ask in the same turn of the loop; with "jitter" each lets none to four turns pass between
its calls. A fill is a miss: redis-py asks, computes, and sets; tiercache also leaves a lease, and
compares it when it fills.
"""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from time import perf_counter_ns
from typing import Any

from _bars import Bar, at_least, at_most
from _l1 import check
from _measure import AsyncTimed, Sample, interleave_async
from _options import options
from _postgres import one_processor
from _report import print_table, save, show, show_bars
from _servers import redis
from _tasks import one_task
from redis.asyncio import BlockingConnectionPool, Redis

from tiercache import Cache, RedisTier

BASE, REDIS_PY = "tiercache", "redis-py"
TASKS = 100
KEYS = 1_000
TTL = 3600
CONNECTIONS = 50
CROWDS = (1_000, 10_000)
JITTER = 4
"""Turns of the loop that a task lets pass between two calls, at most."""

Load = Callable[[int], Awaitable[object]]


@dataclass
class User:
    """A record whose typed bytes are about a hundred."""

    id: int
    name: str
    email: str
    roles: list[str]
    active: bool


def user(number: int) -> User:
    """Return one of them."""
    return User(number, f"user {number}", f"user{number}@example.org", ["admin", "editor"], True)


def team(number: int) -> list[User]:
    """Return some six thousand bytes of them."""
    return [user(number * 100 + at) for at in range(90)]


@dataclass
class Side:
    """How one contender reads small and large values, and loads what is missing."""

    small: Load
    large: Load
    missing: Load


async def fill(load: Load) -> None:
    """Load every key, a few at a time."""
    for number in range(0, KEYS, 10):
        await asyncio.gather(*map(load, range(number, number + 10)))


@asynccontextmanager
async def tiercache(url: str) -> AsyncIterator[Side]:
    """Decorate three loaders, and fill what will be hit."""
    async with Cache(RedisTier(url, timeout=30), bus=None) as cache:

        @cache.cached(ttl=TTL, key="small:{number}")
        async def small(number: int) -> User:
            return user(number)

        @cache.cached(ttl=TTL, key="large:{number}")
        async def large(number: int) -> list[User]:
            return team(number)

        @cache.cached(ttl=TTL, key="fill:{number}")
        async def missing(number: int) -> User:
            return user(number)

        await fill(small)
        await large(0)
        loads = small.stats().loads + large.stats().loads
        yield Side(small, large, missing)
        check("Redis", loads, small.stats().loads + large.stats().loads)


@asynccontextmanager
async def redis_py(url: str) -> AsyncIterator[Side]:
    """Do the same by hand."""
    pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, timeout=60)
    async with Redis(connection_pool=pool) as client:

        async def get(key: str) -> Any:
            return pickle.loads(await client.get(key))

        async def missing(number: int) -> User:
            payload = await client.get(f"py:fill:{number}")
            if payload is not None:
                return pickle.loads(payload)
            value = user(number)
            await client.set(f"py:fill:{number}", pickle.dumps(value), ex=TTL)
            return value

        for number in range(KEYS):
            await client.set(f"py:small:{number}", pickle.dumps(user(number)))
        await client.set("py:large:0", pickle.dumps(team(0)))
        yield Side(
            lambda number: get(f"py:small:{number}"),
            lambda number: get(f"py:large:{number}"),
            missing,
        )
    await pool.disconnect()


def crowd(
    load: Load, calls: int, tasks: int, numbers: Callable[[int, int], int], jitter: int = 0
) -> AsyncTimed:
    """Return a round of so many calls by so many tasks; ``numbers(task, call)`` are the keys."""

    async def work(task: int) -> None:
        turns = random.Random(task)
        for call in range(calls // tasks):
            for _ in range(turns.randint(0, jitter)):
                await asyncio.sleep(0)
            await load(numbers(task, call))

    async def timed() -> int:
        began = perf_counter_ns()
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                group.create_task(work(task))
        return perf_counter_ns() - began

    return timed


def spread(task: int, call: int) -> int:
    """Return a key that no other task asks for."""
    return task + (call * TASKS) % KEYS


async def measure_one(url: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure one task."""
    async with tiercache(url) as ours, redis_py(url) as theirs:
        sides = {BASE: ours, REDIS_PY: theirs}
        results = {}
        for name, pick, share in (
            ("hit, 100 B, one task", lambda side: side.small, 1),
            ("hit, 6 KB, one task", lambda side: side.large, 2),
        ):
            loads = {side: pick(sides[side]) for side in sides}
            timed = {
                side: one_task(lambda load=load: load(0), calls // share)
                for side, load in loads.items()
            }
            results[name] = await interleave_async(timed, calls // share, rounds)
    return results


async def measure_many(url: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure a hundred tasks."""
    fresh = count()
    async with tiercache(url) as ours, redis_py(url) as theirs:
        sides = {BASE: ours, REDIS_PY: theirs}
        results = {
            name: await interleave_async(
                {side: crowd(sides[side].small, calls, TASKS, spread, jitter) for side in sides},
                calls,
                rounds,
            )
            for name, jitter in (
                (f"hits, {TASKS} tasks, lockstep", 0),
                (f"hits, {TASKS} tasks, jitter", JITTER),
            )
        }
        calls //= 4
        timed = {
            side: crowd(sides[side].missing, calls, TASKS, lambda task, call: next(fresh))
            for side in sides
        }
        results[f"fills, {TASKS} tasks"] = await interleave_async(timed, calls, rounds)
    return results


async def measure_crowds(url: str) -> dict[str, tuple[int, int]]:
    """Let very many tasks ask at once; return errors, and all connections opened so far."""
    found = {}
    async with Redis.from_url(url) as watcher, tiercache(url) as ours:
        for tasks in CROWDS:
            asked = [ours.small(task % KEYS) for task in range(tasks)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            errors = sum(isinstance(outcome, BaseException) for outcome in outcomes)
            opened = (await watcher.info("stats"))["total_connections_received"] - 1
            found[f"{tasks:,} tasks at once"] = (errors, opened)
    return found


def bars(results: dict[str, list[Sample]], crowds: dict[str, tuple[int, int]]) -> list[Bar]:
    """Hold the results against what is asked."""
    ratios = {
        name: {sample.name: sample for sample in samples} for name, samples in results.items()
    }
    judged = []
    for name, found in ratios.items():
        if "one task" in name:
            ratio = found[BASE].ratio_to(found[REDIS_PY])
            judged.append(at_most(name, 1.25, ratio, "of redis-py GET + decode"))
        else:
            least = 3 if "fills" in name else 6 if "lockstep" in name else 4
            gain = found[REDIS_PY].ratio_to(found[BASE])
            judged.append(at_least(name, least, gain, "times redis-py's throughput"))
    for name, (errors, opened) in crowds.items():
        judged.append(at_most(f"hits, {name}", 0, errors, "errors"))
        judged.append(at_most(f"hits, {name}", CONNECTIONS, opened, "connections opened"))
    return judged


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=4_000, rounds=15)
    with one_processor(), redis() as url:
        results = asyncio.run(measure_one(url, arguments.calls // 10, arguments.rounds * 2))
    with redis() as url:
        results |= asyncio.run(measure_many(url, arguments.calls, arguments.rounds))
    with redis() as url:
        crowds = asyncio.run(measure_crowds(url))
    judged = bars(results, crowds)
    show("Redis alone: median per call, and as a multiple of tiercache's", results, BASE)
    print_table(
        "Crowds",
        ["", "errors", "connections opened"],
        [[name, str(errors), str(opened)] for name, (errors, opened) in crowds.items()],
    )
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "tasks": TASKS}
        save(arguments.json, "l2_redis", results, BASE, settings, judged, crowds=crowds)


if __name__ == "__main__":
    main()
