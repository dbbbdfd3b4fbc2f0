"""What SQLite through a pool gives 50 tasks: point reads, and short writes.

Wall-clock time; each side has a file of its own, alike, in WAL and with the same pragmas, so that
neither pays for the checkpoints of the other. aiosqlite has one connection and one thread, which
all tasks share, in autocommit: the fewest hops it can do with. "execute_fetchall" and
"execute_insert" are its shortest ways, one hop each, and what the bars are held against; "cursor"
is the way its documentation shows. Every write is a transaction of its own to whoever asked for it:
answered when it is committed. aiosqlite commits each; poolkit commits together what was asked for
meanwhile.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path

import aiosqlite
from _bars import Bar, at_least
from _measure import Sample, interleave_async
from _options import options
from _postgres import POOLKIT
from _report import save, show, show_bars
from _tasks import crowd

from poolkit import Pool

TASKS = 50
ROWS = 10_000
CACHE = 16 * 2**20
AIOSQLITE, CURSOR, TOGETHER = "aiosqlite", "aiosqlite, cursor", "aiosqlite, BEGIN and COMMIT"

Call = Callable[[], Awaitable[object]]


@asynccontextmanager
async def databases(
    folder: str, synchronous: str
) -> AsyncIterator[tuple[Pool, aiosqlite.Connection]]:
    """Open a file on each side, with the same in it."""
    ours, theirs = (str(Path(folder) / f"{synchronous}-{side}.db") for side in ("ours", "theirs"))
    pool = Pool(f"sqlite:///{ours}", synchronous=synchronous, cache_size=CACHE)
    async with pool, aiosqlite.connect(theirs, isolation_level=None) as connection:
        for pragma in (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            f"cache_size=-{CACHE // 1024}",
            f"mmap_size={128 * 2**20}",
            "temp_store=MEMORY",
        ):
            await connection.execute(f"PRAGMA {pragma}")
        rows = [(at, f"user {at}") for at in range(ROWS)]
        for table in ("users", "written"):
            create = f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)"
            await pool.execute(create)
            await connection.execute(create)
        await pool.executemany("INSERT INTO users VALUES ($1, $2)", rows)
        await connection.execute("BEGIN")
        await connection.executemany("INSERT INTO users VALUES (?1, ?2)", rows)
        await connection.execute("COMMIT")
        yield pool, connection


def reads(pool: Pool, connection: aiosqlite.Connection) -> dict[str, Call]:
    """Return how each reads one row by its key."""
    ids = cycle(range(0, ROWS, 7))
    sql = "SELECT name FROM users WHERE id = ?1"

    async def cursor() -> object:
        async with connection.execute(sql, (next(ids),)) as opened:
            return await opened.fetchone()

    return {
        POOLKIT: lambda: pool.fetchval("SELECT name FROM users WHERE id = $1", next(ids)),
        AIOSQLITE: lambda: connection.execute_fetchall(sql, (next(ids),)),
        CURSOR: cursor,
    }


def writes(pool: Pool, connection: aiosqlite.Connection) -> dict[str, Call]:
    """Return how each inserts one row and knows it committed."""
    alone = asyncio.Lock()

    async def together() -> None:
        async with alone:
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO written (name) VALUES (?1)", ("somebody",))
            await connection.execute("COMMIT")

    return {
        POOLKIT: lambda: pool.execute("INSERT INTO written (name) VALUES ($1)", "somebody"),
        AIOSQLITE: lambda: connection.execute_insert(
            "INSERT INTO written (name) VALUES (?1)", ("somebody",)
        ),
        TOGETHER: together,
    }


async def measure(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Measure reads, and writes at both settings of ``synchronous`` that people use."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        async with databases(folder, "NORMAL") as opened:
            results["point reads"] = await _compare(reads(*opened), calls, rounds)
            results[_writes("NORMAL")] = await _compare(writes(*opened), calls, rounds)
        async with databases(folder, "FULL") as opened:
            results[_writes("FULL")] = await _compare(writes(*opened), calls // 4, rounds)
    return results


async def _compare(ways: dict[str, Call], calls: int, rounds: int) -> list[Sample]:
    timed = {name: crowd(call, calls, TASKS) for name, call in ways.items()}
    return await interleave_async(timed, calls, rounds)


def _writes(synchronous: str) -> str:
    return f"short writes, synchronous={synchronous}"


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = []
    for name, samples in results.items():
        by_name = {sample.name: sample for sample in samples}
        gain = by_name[AIOSQLITE].ratio_to(by_name[POOLKIT])
        found.append(at_least(name, 1.5 if "read" in name else 5.0, gain, "times aiosqlite"))
    return found


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=5_000, rounds=15)
    results = asyncio.run(measure(arguments.calls, arguments.rounds))
    judged = bars(results)
    title = f"SQLite, {TASKS} tasks: median per call, and as a multiple of poolkit's"
    show(title, results, POOLKIT)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "tasks": TASKS}
        save(arguments.json, "pool_sqlite", results, POOLKIT, settings, judged)


if __name__ == "__main__":
    main()
