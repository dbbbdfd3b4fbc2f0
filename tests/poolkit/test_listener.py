"""Notifications that survive the loss of their connection."""

import asyncio
from collections.abc import Callable

import pytest

from poolkit import Pool, PoolError
from poolkit.listener import Listener, Notification
from tests.servers.postgres import PostgresServer

MakePool = Callable[..., Pool]
_LIMIT = 20


async def _next(listener: Listener) -> Notification:
    async with asyncio.timeout(_LIMIT):
        return await anext(listener)


async def test_what_is_sent_is_heard_in_order(postgres_dsn: str, make_pool: MakePool) -> None:
    """From the moment the block is entered every notification arrives, on its channel only."""
    pool = make_pool(postgres_dsn)
    async with pool.listen("orders") as listener:
        for number in range(3):
            await pool.execute("SELECT pg_notify('orders', $1)", str(number))
            await pool.execute("SELECT pg_notify('other', 'x')")
        heard = [await _next(listener) for _ in range(3)]
    assert heard == [Notification("orders", str(number)) for number in range(3)]
    assert pool.stats().used == 0


async def test_a_loss_is_a_gap(
    postgres_dsn: str, make_pool: MakePool, postgres_server: PostgresServer
) -> None:
    """After a loss it subscribes again, says that there was a gap, and goes on."""
    pool = make_pool(postgres_dsn)
    async with pool.listen("orders") as listener:
        await pool.execute("NOTIFY orders, 'before'")
        assert (await _next(listener)).payload == "before"
        kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'"
        await asyncio.to_thread(postgres_server.psql, kill.format(postgres_dsn.rpartition("/")[2]))
        gap = await _next(listener)
        assert gap.gap
        assert gap.channel == "orders"
        await pool.execute("NOTIFY orders, 'after'")
        assert await _next(listener) == Notification("orders", "after")


async def test_it_ends_with_the_pool(postgres_dsn: str) -> None:
    """Closing the pool ends the iteration of whoever listens."""
    pool = Pool(postgres_dsn)
    listener = pool.listen("orders")
    await listener.__aenter__()

    async def listen() -> list[Notification]:
        return [notification async for notification in listener]

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    await pool.close(timeout=0.05)
    async with asyncio.timeout(_LIMIT):
        assert await task == []


async def test_a_listener_that_is_dropped_gives_its_connection_back(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """Leaving the loop without closing does not leak the connection."""
    pool = make_pool(postgres_dsn)
    await pool.open()

    async def one() -> None:
        async for _ in pool.listen("orders"):
            return

    task = asyncio.create_task(one())
    async with asyncio.timeout(_LIMIT):
        while not task.done():
            await pool.execute("NOTIFY orders, 'x'")
        while pool.stats().used:
            await asyncio.sleep(0.001)


async def test_a_database_without_notifications_says_so(
    sqlite_dsn: str, make_pool: MakePool
) -> None:
    """SQLite has none, and the error says who has."""
    pool = make_pool(sqlite_dsn)
    with pytest.raises(PoolError, match="PostgreSQL"):
        await anext(pool.listen("orders"))
    assert pool.stats().used == 0
