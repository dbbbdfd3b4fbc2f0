"""Hundreds of tasks, minutes of trouble, and every outcome checked: `make soak-pool`.

One crowd uses a PostgreSQL behind a proxy that swallows, resets, drips and cuts off after COMMIT,
while the server is killed, frozen and restarted; another uses a SQLite file that somebody else
locks. Their tasks run out of patience and are cancelled. Meanwhile and afterwards:

- what a transaction said of its end is what the database holds, and what its hooks were told;
- the figures obey the law: ``idle + used + connecting == size``, ``acquired == released + used``;
- no session reaches its borrower dirty, none is lent twice, none is left on the server;
- when the trouble is over everybody is served, and after `Pool.close` nothing is left: no task,
  thread, file descriptor or object of the pool, and the memory has not grown.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import random
import re
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg

from poolkit import Pool
from poolkit._session import Slot
from poolkit._statements import Borrow
from poolkit.testing import FaultProxy
from poolkit.transaction import Transaction
from tests.servers.postgres import PostgresServer
from tests.servers.reaper import reaper
from tests.soak.trouble import PostgresTrouble, SQLiteTrouble, Trouble
from tests.soak.witness import PostgresWitness, SQLiteWitness
from tests.soak.work import Crowd, Dialect

TABLES = (
    "CREATE TABLE soak (number bigint, part int, PRIMARY KEY (number, part))",
    "CREATE TABLE counter (n bigint)",
    "INSERT INTO counter VALUES (0)",
)
POSTGRES = Dialect(
    seen="SELECT coalesce(current_setting('app.soak', true), '') = ''"
    " AND pg_current_xact_id_if_assigned() IS NULL",
    dirty="SET app.soak = 'dirt'",
    expected=(asyncpg.SerializationError,),
)
SQLITE = Dialect(
    seen="SELECT count(*) = 0 FROM sqlite_temp_master",
    dirty="CREATE TEMP TABLE dirt (x int)",
    expected=(),
)
CHECK_EVERY = 3.0
PATIENCE = 30.0
"""Seconds within which everything is over once the trouble is."""


@dataclass
class Report:
    """What a soak found."""

    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def say(self, label: str, text: str) -> None:
        """Add a line."""
        self.lines.append(f"  {label:14}{text}")


class Memory(NamedTuple):
    """What the process uses: blocks that Python has allocated, private memory in MB."""

    blocks: int
    private: float

    @classmethod
    def now(cls) -> Memory:
        """Look."""
        [kilobytes] = re.findall(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
        return cls(sys.getallocatedblocks(), int(kilobytes) / 1024)

    @classmethod
    def least(cls, seen: Sequence[Memory]) -> Memory:
        """Return what was never gone below: the rest is work under way."""
        return cls(min(each.blocks for each in seen), min(each.private for each in seen))

    def has_grown_since(self, before: Memory) -> bool:
        """Whether it is more than chance, or than what an allocator needs to settle."""
        return self.blocks > before.blocks * 1.1 or self.private > before.private * 1.1 + 5

    def __str__(self) -> str:
        """Return both figures."""
        return f"{self.blocks:,} blocks and {self.private:.1f} MB"


class Soak:
    """One crowd, its pool and its trouble."""

    def __init__(
        self,
        crowd: Crowd,
        trouble: Trouble,
        witness: PostgresWitness | SQLiteWitness,
        tasks: int,
    ) -> None:
        self._crowd = crowd
        self._trouble = trouble
        self._witness = witness
        self._tasks = tasks
        self._peaks: Counter[str] = Counter()
        self.memory: list[Memory] = []

    async def run(self, seconds: float) -> None:
        """Go on for so long, then see everything come to rest."""
        crowd, loop = self._crowd, asyncio.get_running_loop()
        await crowd.pool.open()
        members = [loop.create_task(crowd.member()) for _ in range(self._tasks)]
        sampler = loop.create_task(self._watch())
        end, next_check = loop.time() + seconds, loop.time() + CHECK_EVERY
        while loop.time() < end:
            await self._trouble.one()
            if loop.time() > next_check:
                await crowd.outcomes.check(self._witness)
                self.memory.append(Memory.now())
                next_check = loop.time() + CHECK_EVERY
        crowd.over = True
        _, stuck = await asyncio.wait(members, timeout=PATIENCE)
        for member in stuck:
            crowd.violations.append(f"a task is stuck at {member.get_stack(limit=1)}")
            member.cancel()
        await self._recover()
        sampler.cancel()
        await asyncio.wait([sampler, *members])
        if not sampler.cancelled() and (error := sampler.exception()) is not None:
            raise error

    async def _watch(self) -> None:
        """Hold the figures to the law all the time."""
        while True:
            self._check_law()
            await asyncio.sleep(0.005)

    def _check_law(self) -> None:
        stats, crowd = self._crowd.pool.stats(), self._crowd
        if (
            stats.idle + stats.used + stats.connecting != stats.size
            or stats.size > max(stats.max_size, stats.used + stats.connecting)
            or stats.acquired != stats.released + stats.used
        ):
            crowd.violations.append(f"the law is broken: {stats}")
        for name in ("size", "used", "waiting"):
            self._peaks[name] = max(self._peaks[name], getattr(stats, name))

    async def _recover(self) -> None:
        """See that the pool serves as if nothing had been."""
        crowd, pool = self._crowd, self._crowd.pool
        try:
            async with asyncio.timeout(PATIENCE):
                values = await asyncio.gather(*(_borrow(pool) for _ in range(50)))
                while pool.stats().connecting or pool.stats().size < pool.config.min_size:
                    await asyncio.sleep(0.01)
            if values != [7] * 50:
                crowd.violations.append(f"after the trouble the answers were {values}")
        except Exception as error:
            crowd.violations.append(f"the pool did not recover: {error!r}, {pool.stats()}")
        stats = pool.stats()
        if stats.used or stats.waiting or stats.size > stats.max_size:
            crowd.violations.append(f"not everything came back: {stats}")
        self._check_law()

    async def finish(self, report: Report) -> None:
        """Check the rest of the outcomes; write down the figures."""
        crowd = self._crowd
        await crowd.outcomes.finish(self._witness)
        [[counted]] = await self._witness.ask("SELECT n FROM counter")
        if not crowd.counted <= counted <= crowd.counted + crowd.perhaps_counted:
            crowd.violations.append(
                f"the counter is at {counted}: {crowd.counted} were committed, and maybe "
                f"{crowd.perhaps_counted} more"
            )
        if crowd.hooks_counted != crowd.counted:
            crowd.violations.append(
                f"{crowd.counted} commits of run() called {crowd.hooks_counted} hooks"
            )
        stats = crowd.pool.stats()
        report.lines.append(f"{crowd.name}: {self._tasks} tasks, {stats.max_size} connections")
        report.say("outcomes", _figures(crowd.outcomes.tally))
        report.say("acts", _figures(crowd.tally))
        report.say("errors", _figures(crowd.errors))
        report.say("faults", _figures(self._trouble.tally))
        report.say("counter", f"{counted}, {crowd.perhaps_counted} of unknown end")
        report.say("peaks", _figures(self._peaks))
        report.say("figures", str(stats).removeprefix("PoolStats"))
        report.violations += [f"{crowd.name}: {what}" for what in crowd.violations]


async def _borrow(pool: Pool) -> object:
    async with pool.acquire(timeout=PATIENCE) as connection:
        return await connection.fetchval("SELECT 7")


async def _on_postgres(seconds: float, luck: random.Random, report: Report, tasks: int) -> Soak:
    server = PostgresServer()
    await asyncio.to_thread(server.start)
    try:
        for sql in TABLES:
            await asyncio.to_thread(server.psql, sql)
        witness = PostgresWitness(server.dsn)
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            pool = Pool(
                f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres",
                application_name="soak",
                name="soak",
                min_size=2,
                max_size=10,
                acquire_timeout=3,
                connect_timeout=1,
                housekeeping_timeout=1,
                validate_after=0.2,
                keepalive=2,
                idle_timeout=4,
                max_lifetime=15,
            )
            crowd = Crowd(pool, POSTGRES, luck, "PostgreSQL")
            soak = Soak(crowd, PostgresTrouble(pool, luck, server, proxy), witness, tasks)
            await soak.run(seconds)
            await _see_sessions(crowd, witness, pool.stats().size)
            await pool.close(timeout=5)
            await _see_sessions(crowd, witness, 0)
            await soak.finish(report)
    finally:
        await asyncio.to_thread(server.close)
    return soak


async def _see_sessions(crowd: Crowd, witness: PostgresWitness, expected: int) -> None:
    """See that the server has so many sessions of ours, none of them inside a transaction."""
    sql = (
        "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in%') FROM pg_stat_activity "
        "WHERE application_name = 'soak'"
    )
    found: tuple[int, int] = (-1, -1)
    for _ in range(100):
        [row] = await witness.ask(sql)
        found = (row[0], row[1])
        if found == (expected, 0):
            return
        await asyncio.sleep(0.05)
    crowd.violations.append(
        f"the server has {found[0]} sessions, {found[1]} in a transaction; the pool has {expected}"
    )


async def _on_sqlite(seconds: float, luck: random.Random, report: Report, tasks: int) -> Soak:
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        path = Path(folder) / "soak.db"
        with contextlib.closing(sqlite3.connect(path)) as connection:
            for sql in TABLES:
                connection.execute(sql)
            connection.commit()
        pool = Pool(
            f"sqlite:///{path}",
            name="soak-sqlite",
            min_size=1,
            max_size=60,  # while one is free, single statements share connections
            acquire_timeout=3,
            housekeeping_timeout=1,
            idle_timeout=2,
            max_lifetime=10,
            writer_timeout=3.0,
        )
        crowd = Crowd(pool, SQLITE, luck, "SQLite")
        soak = Soak(crowd, SQLiteTrouble(pool, luck, path), SQLiteWitness(path), tasks)
        await soak.run(seconds)
        await pool.close(timeout=5)
        await soak.finish(report)
    return soak


async def _soak(seconds: float, seed: int, tasks: int, report: Report) -> list[Memory]:
    luck = random.Random(seed)
    postgres, _ = await asyncio.gather(
        _on_postgres(seconds, luck, report, tasks),
        _on_sqlite(seconds, luck, report, tasks // 4),
    )
    left = asyncio.all_tasks() - {asyncio.current_task()}
    report.violations += [f"a task is left: {task}" for task in left]
    return postgres.memory


def soak(seconds: float, *, seed: int = 1, tasks: int = 200) -> Report:
    """Soak both kinds of pool at once; the report lists whatever was wrong."""
    report = Report()
    reaper()  # its pipe stays open for as long as the process lives
    with _nothing_left(report), _silence():
        memory = asyncio.run(_soak(seconds, seed, tasks, report))
    third = len(memory) // 3
    if third >= 3:  # less says nothing about growth
        before, after = Memory.least(memory[third : 2 * third]), Memory.least(memory[-third:])
        report.say("memory", f"{before} in the middle third, {after} in the last")
        if after.has_grown_since(before):
            report.violations.append(f"the memory has grown from {before} to {after}")
    return report


@contextmanager
def _nothing_left(report: Report) -> Iterator[None]:
    """See that no thread, descriptor or object of a pool is left behind."""
    gc.collect()
    threads, descriptors, others = set(threading.enumerate()), _descriptors(), _objects()
    yield
    gc.collect()
    left = [thread.name for thread in threading.enumerate() if thread not in threads]
    opened = {link: n for link, n in (_descriptors() - descriptors).items() if n > 0}
    objects = _objects() - others  # other tests of the process may have left some
    for what, found in (("threads", left), ("descriptors", opened), ("objects", dict(objects))):
        if found:
            report.violations.append(f"{what} are left: {found}")
    report.lines.append("both")
    report.say(
        "left over", f"{len(left)} threads, {len(opened)} descriptors, {len(objects)} objects"
    )


def _objects() -> Counter[str]:
    """Count the objects of pools by kind."""
    kinds = (Slot, Borrow, Transaction, asyncpg.Connection)
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the pool's warnings to itself: they are about what we do to it."""
    logger = logging.getLogger("poolkit")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _descriptors() -> Counter[str]:
    """Count the open descriptors by kind: the numbers of sockets and pipes say nothing."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[os.readlink(entry).partition(":")[0]] += 1
    return found


def _figures(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {tally[name]:,}" for name in sorted(tally)) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="make soak-pool")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    report = soak(chosen.seconds, seed=chosen.seed, tasks=chosen.tasks)
    print(f"soak of {time.monotonic() - began:.0f} s, seed {chosen.seed}")
    print("\n".join(report.lines))
    for violation in report.violations[:50]:
        print(f"VIOLATION  {violation}")
    print(f"{len(report.violations)} violations")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
