"""A private PostgreSQL for the benchmarks that want one, and the pools that are measured on it.

Each pool is used as its documentation says for a single statement: none begins a transaction that
was not asked for, all keep their prepared statements, all have ``SIZE`` open connections.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from _servers import postgres
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from poolkit import Pool

SIZE = 10
PATIENCE = 120.0
"""Seconds that a borrower may wait; none should run into it."""

POOLKIT, ASYNCPG, PSYCOPG, ALCHEMY = "poolkit", "asyncpg.Pool", "psycopg_pool", "SQLAlchemy"
BARE = "bare asyncpg"

Call = Callable[[], Awaitable[object]]

__all__ = ["Pools", "fetchval_calls", "one_processor", "pools", "postgres", "transaction_calls"]


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep this process, and servers started meanwhile, on one processor where the system can.

    One task and its server work in turns. Where the scheduler puts each backend, on the client's
    processor or on another that has to be woken, makes a statement twice or three times as slow,
    for minutes: it would decide which pool looks better.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@dataclass(frozen=True)
class Pools:
    """One open pool of each kind, and a connection without a pool."""

    bare: Any
    poolkit: Pool
    asyncpg: Any
    psycopg: AsyncConnectionPool[Any]
    alchemy: AsyncEngine


@asynccontextmanager
async def pools(dsn: str, *, size: int = SIZE) -> AsyncIterator[Pools]:
    """Open all of them on one server, with all their connections."""
    async with AsyncExitStack() as stack:
        bare = await asyncpg.connect(dsn)
        stack.push_async_callback(bare.close)
        ours = await stack.enter_async_context(
            Pool(dsn, min_size=size, max_size=size, acquire_timeout=PATIENCE)
        )
        theirs = await stack.enter_async_context(
            asyncpg.create_pool(dsn, min_size=size, max_size=size)
        )
        psycopg = AsyncConnectionPool(
            dsn,
            min_size=size,
            max_size=size,
            timeout=PATIENCE,
            open=False,
            kwargs={"autocommit": True},
        )
        await psycopg.open(wait=True)
        stack.push_async_callback(psycopg.close)
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://"),
            pool_size=size,
            max_overflow=0,
            pool_timeout=PATIENCE,
        )
        stack.push_async_callback(engine.dispose)
        yield Pools(bare, ours, theirs, psycopg, engine)


def fetchval_calls(of: Pools) -> dict[str, Call]:
    """Return how each asks for one value, on a connection borrowed for that."""
    statement = text("SELECT 1")
    autocommit = of.alchemy.execution_options(isolation_level="AUTOCOMMIT")

    async def psycopg() -> object:
        async with of.psycopg.connection() as connection:
            return await (await connection.execute("SELECT 1")).fetchone()

    async def alchemy() -> object:
        async with autocommit.connect() as connection:
            return await connection.scalar(statement)

    return {
        POOLKIT: lambda: of.poolkit.fetchval("SELECT 1"),
        BARE: lambda: of.bare.fetchval("SELECT 1"),
        ASYNCPG: lambda: of.asyncpg.fetchval("SELECT 1"),
        PSYCOPG: psycopg,
        ALCHEMY: alchemy,
    }


def transaction_calls(of: Pools, sql: str) -> dict[str, Call]:
    """Return how each runs one statement in a transaction, on a connection borrowed for that."""
    statement = text(sql)

    async def bare() -> None:
        async with of.bare.transaction():
            await of.bare.execute(sql)

    async def poolkit() -> None:
        async with of.poolkit.transaction() as tx:
            await tx.execute(sql)

    async def asyncpg_pool() -> None:
        async with of.asyncpg.acquire() as connection, connection.transaction():
            await connection.execute(sql)

    async def psycopg() -> None:
        async with of.psycopg.connection() as connection, connection.transaction():
            await connection.execute(sql)

    async def alchemy() -> None:
        async with of.alchemy.begin() as connection:
            await connection.execute(statement)

    return {
        POOLKIT: poolkit,
        BARE: bare,
        ASYNCPG: asyncpg_pool,
        PSYCOPG: psycopg,
        ALCHEMY: alchemy,
    }
