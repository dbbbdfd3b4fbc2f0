"""Behaviours 14, 17, 18, 20, 21 and 23 on real servers that are killed, promoted and cut off."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from poolkit import (
    AcquireTimeout,
    ConnectFailed,
    ConnectionLost,
    ConnectionVoid,
    Pool,
    PoolClosed,
)
from poolkit.testing import FaultProxy
from tests.servers.postgres import PostgresServer
from tests.waiting import until

MakePool = Callable[..., Pool]
_LIMIT = 20


async def _borrow(pool: Pool, timeout: float | None = None) -> Any:
    async with pool.acquire(timeout=timeout) as connection:
        return await connection.fetchval("SELECT 1")


def _name(dsn: str) -> str:
    return dsn.rpartition("/")[2]


async def test_b17_killed_backends_cost_no_error(
    postgres_dsn: str, postgres_server: PostgresServer, make_pool: MakePool
) -> None:
    """All idle backends are killed; the next borrows see no error, and the floor is back."""
    pool = make_pool(postgres_dsn, min_size=4, max_size=4)
    await pool.open()
    killed = postgres_server.psql(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        f"WHERE datname = '{_name(postgres_dsn)}'"
    )
    assert killed == "4"
    assert await asyncio.gather(*(_borrow(pool) for _ in range(12))) == [1] * 12
    await until(lambda: pool.stats().idle == 4)


async def test_b17_a_goodbye_comes_before_the_end(postgres_dsn: str, make_pool: MakePool) -> None:
    """A server that has said goodbye to an idle connection and not hung up yet is lost."""
    pool = make_pool(postgres_dsn, max_size=1)
    async with pool.acquire() as connection:
        fields = b"SFATAL\0C57P01\0Mterminating connection\0\0"
        goodbye = b"E" + (4 + len(fields)).to_bytes(4) + fields
        connection.raw._protocol.data_received(goodbye)
        with pytest.raises(ConnectionLost) as caught:
            await connection.fetchval("SELECT 1")
        assert not caught.value.sent
    assert await _borrow(pool) == 1


async def test_b17_a_restart_of_the_server(
    private_postgres: PostgresServer, make_pool: MakePool
) -> None:
    """A pool lives through a restart: who borrows meanwhile waits, and is served."""
    pool = make_pool(private_postgres.dsn, min_size=2, max_size=2)
    await pool.open()
    await asyncio.to_thread(private_postgres.stop)
    await until(lambda: pool.stats().idle == 0)
    waiting = asyncio.create_task(_borrow(pool, _LIMIT))
    await asyncio.to_thread(private_postgres.start)
    assert await waiting == 1


async def test_b18_a_demoted_primary_is_left(
    private_postgres: PostgresServer, make_pool: MakePool
) -> None:
    """SQLSTATE 25006 on a writing pool evicts all; the hosts are resolved anew: the new primary."""
    await asyncio.to_thread(private_postgres.psql, "CREATE TABLE t (x int)")
    standby = await asyncio.to_thread(private_postgres.standby)
    with standby:
        await asyncio.to_thread(standby.catch_up)
        hosts = f"127.0.0.1:{private_postgres.port},127.0.0.1:{standby.port}"
        pool = make_pool(
            f"postgresql://postgres@{hosts}/postgres",
            min_size=2,
            max_size=2,
            target_session_attrs="read-write",
        )
        await pool.execute("INSERT INTO t VALUES (1)")
        # What a failover looks like from inside: the old one is read-only, the other takes over.
        await asyncio.to_thread(standby.promote)
        await asyncio.to_thread(
            private_postgres.psql, "ALTER SYSTEM SET default_transaction_read_only = on"
        )
        await asyncio.to_thread(private_postgres.psql, "SELECT pg_reload_conf()")
        failures = 0
        async with asyncio.timeout(_LIMIT):
            while True:
                try:
                    await pool.execute("INSERT INTO t VALUES (2)")
                except asyncpg.ReadOnlySQLTransactionError:
                    failures += 1
                if failures:
                    break
                await asyncio.sleep(0.01)
        for _ in range(10):
            await pool.execute("INSERT INTO t VALUES (3)")
        assert failures == 1
        found = await asyncio.to_thread(standby.psql, "SELECT count(*) FROM t WHERE x = 3")
        assert found == "10"


async def test_b20_a_refused_port(make_pool: MakePool, unused_tcp_port: int) -> None:
    """open() on a server that is down fails at once, with server and cause, without password."""
    pool = make_pool(f"postgresql://me:secret@127.0.0.1:{unused_tcp_port}/app")
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{unused_tcp_port}/app") as caught:
        await pool.open()
    assert isinstance(caught.value.__cause__, OSError)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, ConnectionError)


async def test_b20_a_refused_user(postgres_dsn: str, make_pool: MakePool) -> None:
    """What the server refuses is a failure to connect, with its words."""
    pool = make_pool(postgres_dsn.rpartition("/")[0] + "/no_such_database")
    with pytest.raises(ConnectFailed, match="no_such_database"):
        await pool.fetchval("SELECT 1")


async def test_b20_a_database_that_cannot_be_opened(make_pool: MakePool, tmp_path: Any) -> None:
    """A file that cannot be made is a failure to connect, too."""
    pool = make_pool(f"sqlite:///{tmp_path}/no/such/folder/x.db")
    with pytest.raises(ConnectFailed, match="no/such/folder"):
        await pool.open()


async def test_b21_a_black_holed_server(postgres_dsn: str, make_pool: MakePool) -> None:
    """While nothing answers, borrowing and giving back end in time; then it recovers."""
    host, port = postgres_dsn.rpartition("/")[0].rpartition("@")[2].split(":")
    loop = asyncio.get_running_loop()
    async with FaultProxy(host, int(port)) as proxy:
        pool = make_pool(
            f"postgresql://postgres@127.0.0.1:{proxy.port}/{_name(postgres_dsn)}",
            min_size=2,
            max_size=3,
            validate_after=0,
            acquire_timeout=0.3,
            connect_timeout=0.5,
            housekeeping_timeout=0.3,
        )
        async with pool.acquire() as connection:
            _ = connection.raw
            proxy.black_hole()
            with pytest.raises(AcquireTimeout):
                await _borrow(pool)
            began = loop.time()
        assert loop.time() - began < 0.2  # giving back waits for nobody
        proxy.heal()
        proxy.cut()
        assert await _borrow(pool, _LIMIT) == 1
        await until(lambda: not pool.stats().connecting)


async def test_b21_a_query_into_the_black_hole(postgres_dsn: str, make_pool: MakePool) -> None:
    """A caller that is out of patience leaves at once; its connection is replaced."""
    host, port = postgres_dsn.rpartition("/")[0].rpartition("@")[2].split(":")
    async with FaultProxy(host, int(port)) as proxy:
        pool = make_pool(
            f"postgresql://postgres@127.0.0.1:{proxy.port}/{_name(postgres_dsn)}",
            max_size=1,
            connect_timeout=0.5,
            housekeeping_timeout=0.3,
        )
        await pool.open()
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), pool.acquire() as connection:
                await connection.fetchval("SELECT 1")
        await until(lambda: pool.stats().size == 0 or proxy.connections > 2)
        proxy.heal()
        proxy.cut()
        assert await _borrow(pool, _LIMIT) == 1


async def test_a_lost_connection_says_so(postgres_dsn: str, make_pool: MakePool) -> None:
    """A connection that is cut in the middle of a statement raises ConnectionLost."""
    pool = make_pool(postgres_dsn, max_size=2)
    async with pool.acquire() as victim, pool.acquire() as killer:
        pid = await victim.fetchval("SELECT pg_backend_pid()")
        sleeping = asyncio.ensure_future(victim.fetchval("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.01)
        await killer.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(ConnectionLost) as caught:
            await sleeping
        assert caught.value.sqlstate == "57P01"
        with pytest.raises(ConnectionLost):
            await victim.fetchval("SELECT 1")
    assert await _borrow(pool) == 1


async def test_b23_close_waits_for_what_is_out(dsn: str, make_pool: MakePool) -> None:
    """New borrowers and waiters are refused; who holds a connection may finish."""
    pool = make_pool(dsn, max_size=1)
    held = await pool.acquire()
    waiter = asyncio.create_task(_borrow(pool))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close(timeout=_LIMIT))
    await asyncio.sleep(0.01)
    with pytest.raises(PoolClosed, match="is closed"):
        await waiter
    for use in (_borrow(pool), pool.fetchval("SELECT 1"), pool.execute("SELECT 1")):
        with pytest.raises(PoolClosed):
            await use
    assert not closing.done()
    assert await held.fetchval("SELECT 1") == 1
    held.release()
    await closing
    assert pool.stats().size == 0


async def test_b23_close_aborts_what_does_not_come_back(dsn: str) -> None:
    """After its timeout close() takes the connection away; its holder is told."""
    pool = Pool(dsn, max_size=1)
    held = await pool.acquire()
    await pool.close(timeout=0.01)
    with pytest.raises((ConnectionLost, ConnectionVoid)):
        await held.fetchval("SELECT 1")
    held.release()
    stats = pool.stats()
    assert (stats.size, stats.used) == (0, 0)
    assert stats.acquired == stats.released


async def test_b23_close_again_and_open_anew(dsn: str) -> None:
    """Closing is idempotent, also at the same time; a closed pool can be opened anew."""
    pool = Pool(dsn)
    await pool.close()  # never opened
    async with pool:
        assert await _borrow(pool) == 1
        await asyncio.gather(pool.close(), pool.close())
        await pool.close()
    async with pool:
        assert await _borrow(pool) == 1


async def test_b23_close_leaves_nothing(dsn: str, postgres_server: PostgresServer) -> None:
    """No task, no thread and no connection on the server is left."""
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    async with Pool(dsn, min_size=3, max_size=3) as pool:
        await asyncio.gather(*(_borrow(pool) for _ in range(10)))
        await pool.execute("CREATE TABLE t (x int)")
        await pool.execute("INSERT INTO t VALUES (1)")
    assert asyncio.all_tasks() == tasks
    assert set(threading.enumerate()) == threads
    if dsn.startswith("postgresql"):
        left = await asyncio.to_thread(
            postgres_server.psql,
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{_name(dsn)}'",
        )
        assert left == "0"


async def test_b40_another_loop_is_told(dsn: str) -> None:
    """A pool used from another event loop says to whom it belongs."""
    async with Pool(dsn) as pool:

        def elsewhere() -> str:
            with pytest.raises(PoolClosed, match="another event loop") as caught:
                asyncio.run(_borrow(pool))
            return str(caught.value)

        assert "sibling()" in await asyncio.to_thread(elsewhere)


def test_b40_a_second_run(dsn: str) -> None:
    """A pool that is closed before its loop ends works in the next one."""
    pool = Pool(dsn)

    async def main() -> int:
        async with pool:
            value: int = await _borrow(pool)
            return value

    assert asyncio.run(main()) == 1
    assert asyncio.run(main()) == 1
