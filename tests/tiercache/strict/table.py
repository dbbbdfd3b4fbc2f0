"""One row of a database, read strictly by two caches, as two processes would."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from poolkit import Pool, Transaction
from tiercache import Cache
from tiercache.errors import TierError
from tiercache.invalidation import Change


class Gate:
    """Where somebody stands until the test lets him go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def stop(self) -> None:
        """Stand here."""
        self.reached.set()
        await self.opened.wait()


class Reader:
    """A cache with a strict function over the row, whose loads the test can hold."""

    def __init__(self, cache: Cache, pool: Pool, **options: Any) -> None:
        self.cache = cache
        self.pool = pool
        self.loads = 0
        self.hold: Gate | None = None
        """Where the next load stands after it has read the row."""

        @cache.cached(ttl=60, key="name:{id}", tags=["user:{id}"], strict=True, **options)
        async def name(id: int) -> str:
            return await self.load(id)

        self.name = name

    async def load(self, id: int) -> str:
        """Read the row."""
        self.loads += 1
        hold, self.hold = self.hold, None
        value: str = await self.pool.fetchval("SELECT name FROM users WHERE id = $1", id)
        if hold is not None:
            await hold.stop()
        return value

    def start(self, id: int = 1) -> "asyncio.Task[str]":
        """Read in a task of its own."""
        return asyncio.create_task(self.name(id))

    async def look(self) -> None:
        """Have this process look at the marks, all of which are old enough."""
        await upkeep(self.cache).look(0.0)

    async def is_cached(self) -> bool:
        """Read, and say whether that took no load."""
        before = self.loads
        await self.name(1)
        return self.loads == before


def strict_of(cache: Cache) -> Any:
    """Return the strict keys of a cache."""
    strict = cache._parts.strict
    assert strict is not None
    return strict


def upkeep(cache: Cache) -> Any:
    """Return who looks after the marks in Redis."""
    return strict_of(cache)._marking._upkeep


async def rename(cache: Cache, tx: Transaction, name: str, id: int = 1) -> None:
    """Write, and say so."""
    await tx.execute("UPDATE users SET name = $1 WHERE id = $2", name, id)
    await cache.invalidate(tags=[f"user:{id}"])


def before_commit(cache: Cache, then: Callable[[], Awaitable[None]]) -> None:
    """Do something after everything has been prepared and before COMMIT is sent."""
    outbox = cache._parts.outbox
    seal = outbox.sealing
    assert seal is not None

    async def sealing(transaction: Transaction, changes: Sequence[Change]) -> None:
        assert seal is not None
        await seal(transaction, changes)
        await then()

    outbox.sealing = sealing


def dies_at_commit(cache: Cache) -> None:
    """Let nothing happen any more after the end of a transaction, as if the process had died."""
    parts = cache._parts

    async def nothing(*args: Any, **options: Any) -> None:
        """Be dead."""

    async def refuse(*args: Any, **options: Any) -> None:
        raise TierError("dead", tier="redis", operation="unmark")

    parts.relay.carry = nothing  # type: ignore[method-assign]
    marks = getattr(strict_of(cache)._marking, "_marks", None)
    if marks is not None:
        marks.unmark = refuse


@asynccontextmanager
async def committing(
    cache: Cache, pool: Pool, name: str, *, error: Exception | None = None
) -> AsyncIterator[Gate]:
    """Hold a transaction of another task right before its COMMIT, or before it is rolled back."""
    gate = Gate()

    async def hold() -> None:
        await gate.stop()
        if error is not None:
            raise error

    before_commit(cache, hold)

    async def write() -> None:
        async with pool.transaction() as tx:
            await rename(cache, tx, name)

    writer = asyncio.create_task(write())
    await asyncio.wait_for(gate.reached.wait(), 10)
    try:
        yield gate
    finally:
        gate.opened.set()
        ended = await asyncio.gather(writer, return_exceptions=True)
        assert ended == [error]


async def ready(cache: Cache) -> None:
    """Wait until strict values may be cached: the transactions of others are over."""
    async with asyncio.timeout(10):
        while not await upkeep(cache).establish():
            await asyncio.sleep(0.002)
