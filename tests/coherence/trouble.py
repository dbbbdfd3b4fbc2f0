"""The trouble that a trial makes: for Redis, for PostgreSQL, on the wire, for processes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from poolkit.testing import FaultProxy
from tests.coherence.plan import Plan
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

Fault = Callable[[], Awaitable[None]]
Kill = Callable[[random.Random], Awaitable[None]]


class Trouble:
    """Makes faults, one after the other, and sees that each is over."""

    def __init__(
        self,
        plan: Plan,
        luck: random.Random,
        redis: RedisServer,
        postgres: PostgresServer,
        redis_wire: FaultProxy,
        postgres_wire: FaultProxy,
        kill: Kill,
    ) -> None:
        self.tally: Counter[str] = Counter()
        self._plan = plan
        self._luck = luck
        self._redis = redis
        self._postgres = postgres
        self._redis_wire = redis_wire
        self._postgres_wire = postgres_wire
        self._kill = kill
        self._faults: list[tuple[Fault, int]] = [(self.quiet, 3)]
        if plan.idle:
            return
        if plan.deaths:
            self._faults.append((self.kill_worker, 2))
        if plan.l2 or plan.bus == "redis":
            self._faults += [
                (self.freeze_redis, 2),
                (self.restart_redis, 2),
                (self.flush, 2),
                (self.evict, 2),
                (self.cut_redis, 3),
                (self.lose_redis, 2),
            ]
        if plan.database == "postgres":
            self._faults += [(self.terminate, 2), (self.cut_postgres, 2)]
        else:
            self._faults.append((self.lock_file, 2))

    async def one(self) -> None:
        """Make one, and mend it."""
        faults, weights = zip(*self._faults, strict=True)
        [fault] = self._luck.choices(faults, weights)
        self.tally[fault.__name__.replace("_", " ")] += 1
        await fault()

    async def mend(self) -> None:
        """See that everything works."""
        self._redis_wire.heal()
        self._postgres_wire.heal()

    async def _some_time(self, longest: float = 1.0) -> None:
        await asyncio.sleep(self._luck.uniform(0.05, longest))

    async def quiet(self) -> None:
        """Make no trouble for a moment."""
        await self._some_time()

    async def kill_worker(self) -> None:
        """Kill a process in the midst of what it does."""
        await self._kill(self._luck)

    # -- Redis --------------------------------------------------------------------------------

    async def freeze_redis(self) -> None:
        """Stop it in its tracks, shorter or longer than ``bus_timeout``."""
        await asyncio.to_thread(self._redis.pause)
        await self._some_time(2)
        await asyncio.to_thread(self._redis.resume)

    async def restart_redis(self) -> None:
        """Kill it; it comes back empty."""
        await asyncio.to_thread(self._redis.kill)
        await self._some_time(0.5)
        await asyncio.to_thread(self._redis.start)

    async def flush(self) -> None:
        """Empty it."""
        await asyncio.to_thread(self._redis.cli, "FLUSHALL")
        await self._some_time(0.3)

    async def evict(self) -> None:
        """Have it throw keys out at random, the bus included, for a moment."""
        used = int(await asyncio.to_thread(self._used))
        await self._configure(maxmemory_policy="allkeys-random", maxmemory=used - 2_000)
        await self._some_time(0.5)
        await self._configure(maxmemory=0)

    def _used(self) -> int:
        info: dict[str, int] = self._redis.cli("INFO", "memory")
        return int(info["used_memory"])

    async def _configure(self, **settings: str | int) -> None:
        for name, value in settings.items():
            await asyncio.to_thread(self._redis.cli, "CONFIG", "SET", name.replace("_", "-"), value)

    async def cut_redis(self) -> None:
        """Cut the connections of one process, its bus included."""
        self._redis_wire.cut()
        await self._some_time(0.3)

    async def lose_redis(self) -> None:
        """Take one process' way to Redis for a while, longer than ``bus_timeout`` or not."""
        self._redis_wire.black_hole()
        await self._some_time(2)
        if self._luck.random() < 0.5:
            self._redis_wire.cut()
        self._redis_wire.heal()

    # -- databases ----------------------------------------------------------------------------

    async def terminate(self) -> None:
        """End some of the server's processes for this database, those that listen included."""
        every = self._luck.randint(1, 3)
        name = self._plan.dsn.rpartition("/")[2]
        await asyncio.to_thread(
            self._postgres.psql,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid % {every} = 0",
        )
        await self._some_time(0.3)

    async def cut_postgres(self) -> None:
        """Cut one process off from its database, some between COMMIT and its answer."""
        if self._luck.random() < 0.5:
            self._postgres_wire.kill_after = b"COMMIT"
            await self._some_time(0.5)
            self._postgres_wire.heal()
        self._postgres_wire.cut()

    async def lock_file(self) -> None:
        """Hold the lock for writing, as another process would."""
        await asyncio.to_thread(self._lock, self._luck.uniform(0.01, 0.3))

    def _lock(self, seconds: float) -> None:
        path = self._plan.dsn.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
            with contextlib.suppress(sqlite3.OperationalError):  # others were quicker all the time
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
            connection.rollback()
