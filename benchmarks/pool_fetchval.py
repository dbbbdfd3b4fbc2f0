"""What ``SELECT 1`` through a pool costs: one task alone, and 50 tasks on 10 connections.

Wall-clock time against a private PostgreSQL; one task and its server share a processor, fifty have
all there are. The bare connection is what is left without a pool; it can serve one task only.
asyncpg.Pool resets every connection that comes back, in a round trip of its own; psycopg_pool and
SQLAlchemy are in autocommit, so that none begins a transaction.
"""

from __future__ import annotations

import asyncio

from _bars import Bar, at_most
from _measure import Sample, interleave_async
from _options import options
from _postgres import ASYNCPG, BARE, POOLKIT, SIZE, fetchval_calls, one_processor, pools, postgres
from _report import save, show, show_bars
from _tasks import crowd, one_task

ONE, MANY = "one task", f"50 tasks, {SIZE} connections"
TASKS = 50


def measure(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure both."""
    with one_processor(), postgres() as dsn:
        alone = asyncio.run(measure_one(dsn, calls // 4, rounds * 2))
    with postgres() as dsn:
        many = asyncio.run(measure_many(dsn, calls, rounds))
    return {ONE: alone, MANY: many}


async def measure_one(dsn: str, calls: int, rounds: int) -> list[Sample]:
    """Measure one task, in short rounds, so that the neighbours disturb all alike."""
    async with pools(dsn, size=1) as opened:
        ways = fetchval_calls(opened)
        timed = {name: one_task(call, calls) for name, call in ways.items()}
        return await interleave_async(timed, calls, rounds)


async def measure_many(dsn: str, calls: int, rounds: int) -> list[Sample]:
    """Measure a crowd."""
    async with pools(dsn) as opened:
        ways = fetchval_calls(opened)
        del ways[BARE]
        timed = {name: crowd(call, calls, TASKS) for name, call in ways.items()}
        return await interleave_async(timed, calls, rounds)


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    alone = {sample.name: sample for sample in results[ONE]}
    many = {sample.name: sample for sample in results[MANY]}
    return [
        at_most(ONE, 1.15, alone[POOLKIT].ratio_to(alone[BARE]), "of a bare asyncpg connection"),
        at_most(ONE, 0.65, alone[POOLKIT].ratio_to(alone[ASYNCPG]), "of asyncpg.Pool"),
        at_most(MANY, 0.65, many[POOLKIT].ratio_to(many[ASYNCPG]), "of asyncpg.Pool"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=1_000, rounds=25)
    results = measure(arguments.calls, arguments.rounds)
    judged = bars(results)
    show("SELECT 1: median per call, and as a multiple of poolkit's", results, POOLKIT)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "size": SIZE}
        save(arguments.json, "pool_fetchval", results, POOLKIT, settings, judged)


if __name__ == "__main__":
    main()
