"""What PostgreSQL as the only tier gives, beside a bare `fetchrow` and asyncpg's own pool.

Wall-clock time against a private server, all with as many connections. The rivals read one row by
its primary key, and decode nothing; tiercache also checks the key, its time and its tags, and
builds the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from _bars import Bar, at_least, at_most
from _l1 import check
from _measure import Sample, interleave_async
from _options import options
from _postgres import one_processor
from _report import save, show, show_bars
from _servers import postgres
from _tasks import one_task
from l2_redis import BASE, KEYS, TASKS, TTL, Load, User, crowd, fill, spread, user

from poolkit import Pool
from tiercache import Cache, DatabaseTier
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, Entry

BARE, POOL = "bare fetchrow", "asyncpg.Pool"
CONNECTIONS = 10
SQL = "SELECT payload, expires FROM rival WHERE key = $1"


@asynccontextmanager
async def sides(dsn: str) -> AsyncIterator[dict[str, Load]]:
    """Open all, with the same in them; each reads a record by number."""
    bare = await asyncpg.connect(dsn)
    await bare.execute("CREATE TABLE rival (key text PRIMARY KEY, payload bytea, expires float8)")
    sealer = Sealer()
    rows = [
        (f"user:{at}", sealer.seal(f"user:{at}", Entry(user(at), 0, FOREVER, FOREVER), User), 1e12)
        for at in range(KEYS)
    ]
    await bare.executemany("INSERT INTO rival VALUES ($1, $2, $3)", rows)
    await bare.execute("VACUUM ANALYZE rival")
    pool = Pool(dsn, max_size=1)
    tier = DatabaseTier(pool, max_size=CONNECTIONS, timeout=30)
    async with (
        asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as theirs,
        pool,
        Cache(tier, bus=None, outbox=None) as cache,
    ):

        @cache.cached(ttl=TTL, key="user:{number}")
        async def load(number: int) -> User:
            return user(number)

        await fill(load)
        loads = cache.stats().loads
        yield {
            BASE: load,
            BARE: lambda number: bare.fetchrow(SQL, f"user:{number}"),
            POOL: lambda number: theirs.fetchrow(SQL, f"user:{number}"),
        }
        check("PostgreSQL", loads, cache.stats().loads)
    await bare.close()


async def measure_one(dsn: str, calls: int, rounds: int) -> list[Sample]:
    """Measure one task."""
    async with sides(dsn) as found:
        timed = {name: one_task(lambda load=load: load(0), calls) for name, load in found.items()}
        return await interleave_async(timed, calls, rounds)


async def measure_many(dsn: str, calls: int, rounds: int) -> list[Sample]:
    """Measure a hundred tasks, which one connection alone cannot serve."""
    async with sides(dsn) as found:
        del found[BARE]
        timed = {name: crowd(load, calls, TASKS, spread) for name, load in found.items()}
        return await interleave_async(timed, calls, rounds)


ONE, MANY = "PostgreSQL hit, one task", f"PostgreSQL hits, {TASKS} tasks"


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    one = {sample.name: sample for sample in results[ONE]}
    many = {sample.name: sample for sample in results[MANY]}
    return [
        at_most(ONE, 1.25, one[BASE].ratio_to(one[BARE]), "of a bare fetchrow"),
        at_least(MANY, 3, many[POOL].ratio_to(many[BASE]), "times asyncpg.Pool's throughput"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=2_000, rounds=15)
    with one_processor(), postgres() as dsn:
        one = asyncio.run(measure_one(dsn, arguments.calls // 10, arguments.rounds * 2))
    with postgres() as dsn:
        many = asyncio.run(measure_many(dsn, arguments.calls, arguments.rounds))
    results = {ONE: one, MANY: many}
    judged = bars(results)
    show("PostgreSQL alone: median per call, and as a multiple of tiercache's", results, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "tasks": TASKS}
        save(arguments.json, "l3_postgres", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
