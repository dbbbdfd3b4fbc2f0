"""Who is served out of turn when 1,000 tasks wait for 10 connections, and how badly.

The waiters queue one after the other while all connections are out. Each, when served, gives its
connection back and asks again at once, which puts it behind everybody: a pool that lets newcomers
in serves it first. A waiter is *overtaken* by every request that arrived after its own and was
served before it; shown is how often that happened to the unluckiest, and to how many at all.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from _bars import Bar, at_most
from _options import options
from _postgres import ALCHEMY, ASYNCPG, POOLKIT, PSYCOPG, SIZE, pools, postgres
from _report import print_table, save, show_bars

WAITERS = 1_000
Borrow = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True)
class Order:
    """How one pool treated its waiters."""

    name: str
    worst: int
    """How many later requests were served before the unluckiest one."""
    overtaken: int
    """How many requests this happened to at all."""


async def served(borrow: Borrow, waiters: int) -> list[int]:
    """Return the numbers of all requests, in order of arrival, as they were served."""
    order: list[int] = []
    arrivals = 0

    async def wait() -> None:
        nonlocal arrivals
        for _ in range(2):
            number, arrivals = arrivals, arrivals + 1
            async with borrow():
                order.append(number)

    async with AsyncExitStack() as held:
        for _ in range(SIZE):
            await held.enter_async_context(borrow())
        tasks = [asyncio.ensure_future(wait()) for _ in range(waiters)]
        while arrivals < waiters:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return order


def judge(name: str, order: list[int]) -> Order:
    """Count who was overtaken."""
    before: list[int] = []
    overtakings = []
    for number in order:
        overtakings.append(len(before) - bisect_right(before, number))
        insort(before, number)
    return Order(name, max(overtakings), sum(1 for count in overtakings if count))


async def measure(dsn: str, waiters: int, rounds: int) -> list[Order]:
    """Return the worst of each pool's rounds."""
    async with pools(dsn) as opened:
        ways: dict[str, Borrow] = {
            POOLKIT: opened.poolkit.acquire,
            ASYNCPG: opened.asyncpg.acquire,
            PSYCOPG: opened.psycopg.connection,
            ALCHEMY: opened.alchemy.connect,
        }
        worst = {}
        for _ in range(rounds):
            for name, borrow in ways.items():
                order = judge(name, await served(borrow, waiters))
                worst[name] = max(worst.get(name, order), order, key=lambda each: each.worst)
        return list(worst.values())


def bars(orders: list[Order]) -> list[Bar]:
    """Hold the results against what is asked."""
    ours = next(order for order in orders if order.name == POOLKIT)
    return [at_most(f"{WAITERS:,} waiters", 0, ours.worst, "overtakings of the unluckiest")]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=WAITERS, rounds=3)
    with postgres() as dsn:
        orders = asyncio.run(measure(dsn, arguments.calls, arguments.rounds))
    head = ["pool", "worst overtaking", "requests overtaken"]
    lines = [
        [order.name, f"{order.worst:,}", f"{order.overtaken:,} of {2 * arguments.calls:,}"]
        for order in orders
    ]
    print_table(f"{arguments.calls:,} waiters, {SIZE} connections", head, lines)
    judged = bars(orders)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"waiters": arguments.calls, "rounds": arguments.rounds, "size": SIZE}
        results = {"orders": [asdict(order) for order in orders]}
        save(arguments.json, "pool_fairness", {}, POOLKIT, settings, judged, **results)


if __name__ == "__main__":
    main()
