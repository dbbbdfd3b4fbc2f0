"""The trouble that a soak makes: on the wire, at the server, at the pool itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from poolkit import Pool
from poolkit.testing import FaultProxy
from tests.servers.postgres import PostgresServer

Fault = Callable[[], Awaitable[None]]


class Trouble:
    """Makes faults, one after the other, and sees that each is over."""

    def __init__(self, pool: Pool, luck: random.Random) -> None:
        self.tally: Counter[str] = Counter()
        self.pool = pool
        self.luck = luck
        self.max_size = pool.config.max_size
        self.faults: list[tuple[Fault, int]] = [
            (self.recycle, 2),
            (self.resize, 2),
            (self.suspend, 1),
            (self.quiet, 4),
        ]

    async def one(self) -> None:
        """Make one, and mend it."""
        faults, weights = zip(*self.faults, strict=True)
        [fault] = self.luck.choices(faults, weights)
        self.tally[fault.__name__] += 1
        await fault()

    async def some_time(self, longest: float = 1.0) -> None:
        """Let it last."""
        await asyncio.sleep(self.luck.uniform(0.05, longest))

    async def quiet(self) -> None:
        """Make no trouble for a moment."""
        await self.some_time()

    async def recycle(self) -> None:
        """Replace every connection."""
        self.pool.recycle()

    async def resize(self) -> None:
        """Make the pool smaller, then as large as it was."""
        self.pool.resize(max_size=self.luck.randint(1, self.max_size))
        await self.some_time()
        self.pool.resize(max_size=self.max_size)

    async def suspend(self) -> None:
        """Hold everybody back for a moment."""
        self.pool.suspend()
        await self.some_time(0.3)
        self.pool.resume()


class PostgresTrouble(Trouble):
    """Faults of a server and of the way to it."""

    def __init__(
        self, pool: Pool, luck: random.Random, server: PostgresServer, proxy: FaultProxy
    ) -> None:
        super().__init__(pool, luck)
        self._server = server
        self._proxy = proxy
        self.faults += [
            (self.black_hole, 2),
            (self.reset, 3),
            (self.drip, 2),
            (self.no_answer_to_commit, 3),
            (self.refuse, 2),
            (self.kill_backends, 3),
            (self.freeze, 1),
            (self.crash, 1),
            (self.restart, 1),
        ]

    async def black_hole(self) -> None:
        """Take everything and answer nothing; maybe reset it all afterwards."""
        self._proxy.black_hole()
        await self.some_time(2)
        self._proxy.heal()
        if self.luck.random() < 0.5:
            self._proxy.cut()

    async def reset(self) -> None:
        """Reset every connection."""
        self._proxy.cut()

    async def drip(self) -> None:
        """Let a few bytes through at a time."""
        self._proxy.piece, self._proxy.delay = self.luck.randint(1, 64), 0.001
        await self.some_time()
        self._proxy.heal()

    async def no_answer_to_commit(self) -> None:
        """Cut every connection between COMMIT and its answer."""
        self._proxy.kill_after = b"COMMIT"
        await self.some_time(0.5)
        self._proxy.heal()

    async def refuse(self) -> None:
        """Accept no more connections; those that are there stay, or not."""
        await self._proxy.refuse()
        if self.luck.random() < 0.5:
            self._proxy.cut()
        await self.some_time()
        await self._proxy.__aenter__()

    async def kill_backends(self) -> None:
        """End some or all of the server's processes for us."""
        every = self.luck.randint(1, 3)
        await asyncio.to_thread(
            self._server.psql,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE application_name = 'soak' AND pid % {every} = 0",
        )

    async def freeze(self) -> None:
        """Stop the server in its tracks for a moment."""
        await asyncio.to_thread(self._server.pause)
        await self.some_time(2)
        await asyncio.to_thread(self._server.resume)

    async def crash(self) -> None:
        """Kill the server, and start it again."""
        await asyncio.to_thread(self._server.kill)
        await self.some_time(0.5)
        await asyncio.to_thread(self._server.start)

    async def restart(self) -> None:
        """Restart the server as an administrator would."""
        await asyncio.to_thread(self._server.restart)


class SQLiteTrouble(Trouble):
    """Faults of a file: others write to it."""

    def __init__(self, pool: Pool, luck: random.Random, path: Path) -> None:
        super().__init__(pool, luck)
        self._path = path
        self.faults += [(self.lock, 4)]

    async def lock(self) -> None:
        """Hold the lock for writing, as another process would."""
        await asyncio.to_thread(self._lock, self.luck.uniform(0.01, 0.4))

    def _lock(self, seconds: float) -> None:
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE counter SET n = n")
            time.sleep(seconds)
            connection.rollback()
