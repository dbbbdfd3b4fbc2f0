"""What a transaction with one statement costs, borrowing and giving back included.

Wall-clock time of one task against a private PostgreSQL on the same processor, without fsync: what
is compared is the pool, not the disk. Both a transaction that reads and one that changes a row. The
bare connection is what is left without a pool.
"""

from __future__ import annotations

import asyncio

import asyncpg
from _bars import Bar, at_most
from _measure import Sample, interleave_async
from _options import options
from _postgres import ASYNCPG, POOLKIT, one_processor, pools, postgres, transaction_calls
from _report import save, show, show_bars
from _tasks import one_task

STATEMENTS = {
    "SELECT": "SELECT 1",
    "UPDATE": "UPDATE counter SET n = n + 1 WHERE id = 1",
}


async def measure(dsn: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure each statement."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE counter (id int PRIMARY KEY, n bigint)")
    await connection.execute("INSERT INTO counter VALUES (1, 0)")
    await connection.close()
    results = {}
    async with pools(dsn, size=1) as opened:
        for name, sql in STATEMENTS.items():
            ways = transaction_calls(opened, sql)
            timed = {way: one_task(call, calls) for way, call in ways.items()}
            results[name] = await interleave_async(timed, calls, rounds)
    return results


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = []
    for name, samples in results.items():
        by_name = {sample.name: sample for sample in samples}
        ratio = by_name[POOLKIT].ratio_to(by_name[ASYNCPG])
        found.append(at_most(f"transaction, {name}", 0.8, ratio, "of asyncpg.Pool"))
    return found


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=200, rounds=50)
    with one_processor(), postgres() as dsn:
        results = asyncio.run(measure(dsn, arguments.calls, arguments.rounds))
    judged = bars(results)
    show("One statement in a transaction, and as a multiple of poolkit's", results, POOLKIT)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "size": 1}
        save(arguments.json, "pool_transaction", results, POOLKIT, settings, judged)


if __name__ == "__main__":
    main()
