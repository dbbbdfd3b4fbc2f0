"""What SQLite as the only tier gives: a thread beside diskcache, tasks beside aiosqlite.

Wall-clock time; all of them have WAL. diskcache unpickles what it reads; aiosqlite reads one row by
its primary key through `execute_fetchall`, its shortest way, on one connection that all tasks
share, and decodes nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter_ns

import aiosqlite
import diskcache
from _bars import Bar, at_least, at_most
from _l1 import check
from _measure import Sample, Timed, interleave, interleave_async
from _options import options
from _report import save, show, show_bars
from _tasks import one_task
from l2_redis import BASE, KEYS, TASKS, TTL, Load, User, crowd, fill, spread, user

from tiercache import Cache, DatabaseTier
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, Entry

DISKCACHE, AIOSQLITE = "diskcache", "aiosqlite"
SYNC, ONE, MANY = "SQLite hit, a thread", "SQLite hit, one task", f"SQLite hits, {TASKS} tasks"
SQL = "SELECT payload, expires FROM rival WHERE key = ?"


def tier(folder: str, name: str) -> DatabaseTier:
    """Return a tier that waits rather than goes round the database, should the machine be busy."""
    return DatabaseTier(f"sqlite:///{folder}/{name}.db", timeout=30)


def measure_sync(folder: str, calls: int, rounds: int) -> list[Sample]:
    """Measure a thread that blocks."""
    with (
        Cache(tier(folder, "ours"), bus=None, outbox=None) as cache,
        diskcache.Cache(f"{folder}/diskcache") as theirs,
    ):

        @cache.cached(ttl=TTL, key="user:{number}")
        def ours(number: int) -> User:
            return user(number)

        for number in range(KEYS):
            ours(number)
            theirs.set(f"user:{number}", user(number), expire=TTL)

        def round_of(load: object) -> Timed:
            def timed() -> int:
                began = perf_counter_ns()
                for number in range(calls):
                    load(number % KEYS)  # type: ignore[operator]
                return perf_counter_ns() - began

            return timed

        timed = {
            BASE: round_of(ours),
            DISKCACHE: round_of(lambda number: theirs.get(f"user:{number}")),
        }
        loads = cache.stats().loads
        samples = interleave(timed, calls, rounds)
        check(SYNC, loads, cache.stats().loads)
        return samples


@asynccontextmanager
async def sides(folder: str) -> AsyncIterator[dict[str, Load]]:
    """Open both, with the same in them."""
    sealer = Sealer()
    async with (
        Cache(tier(folder, "tasks"), bus=None, outbox=None) as cache,
        aiosqlite.connect(str(Path(folder) / "theirs.db"), isolation_level=None) as theirs,
    ):
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"mmap_size={128 * 2**20}"):
            await theirs.execute(f"PRAGMA {pragma}")
        await theirs.execute(
            "CREATE TABLE rival (key TEXT PRIMARY KEY, payload BLOB, expires REAL)"
        )
        rows = [
            (f"user:{at}", sealer.seal(f"user:{at}", Entry(user(at), 0, FOREVER, FOREVER), User), 0)
            for at in range(KEYS)
        ]
        await theirs.executemany("INSERT INTO rival VALUES (?, ?, ?)", rows)

        @cache.cached(ttl=TTL, key="user:{number}")
        async def load(number: int) -> User:
            return user(number)

        await fill(load)
        loads = cache.stats().loads
        yield {
            BASE: load,
            AIOSQLITE: lambda number: theirs.execute_fetchall(SQL, (f"user:{number}",)),
        }
        check("SQLite", loads, cache.stats().loads)


async def measure(folder: str, calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure one task, and a hundred."""
    async with sides(folder) as found:
        few = calls // 4
        one = {name: one_task(lambda load=load: load(0), few) for name, load in found.items()}
        many = {name: crowd(load, calls, TASKS, spread) for name, load in found.items()}
        return {
            ONE: await interleave_async(one, few, rounds),
            MANY: await interleave_async(many, calls, rounds),
        }


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    sync, one, many = (
        {sample.name: sample for sample in results[name]} for name in (SYNC, ONE, MANY)
    )
    return [
        at_most(SYNC, 1.25, sync[BASE].ratio_to(sync[DISKCACHE]), "of diskcache's hit"),
        at_most(ONE, 0.8, one[BASE].ratio_to(one[AIOSQLITE]), "of an aiosqlite point read"),
        at_least(MANY, 2, many[AIOSQLITE].ratio_to(many[BASE]), "times aiosqlite's throughput"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=2_000, rounds=25)
    with tempfile.TemporaryDirectory() as folder:
        results = {SYNC: measure_sync(folder, arguments.calls // 2, arguments.rounds)}
        results |= asyncio.run(measure(folder, arguments.calls, arguments.rounds))
    judged = bars(results)
    show("SQLite alone: median per call, and as a multiple of tiercache's", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "tasks": TASKS}
        save(arguments.json, "l3_sqlite", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
