"""Behaviours 9 to 12: cancellation, at every await there is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from poolkit import Pool, current_transaction
from poolkit.testing import StubDriver, VirtualClock, cancel_everywhere, run_virtual
from tests.poolkit.conftest import check_law

MakePool = Callable[..., Pool]


async def settled(pool: Pool) -> None:
    """Wait until nothing is being opened or cleaned any more."""
    async with asyncio.timeout(10):
        while pool.stats().connecting:
            await asyncio.sleep(0.001)


async def _acquire(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.fetchval("SELECT 1")


async def _dirty(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("CREATE TEMP TABLE dirt (x int)")


async def _commit(pool: Pool) -> None:
    async with pool.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        tx.before_commit(lambda: tx.execute("INSERT INTO t VALUES (1)"))
        async with tx.transaction() as savepoint:
            await savepoint.execute("INSERT INTO t VALUES (1)")


async def _roll_back(pool: Pool) -> None:
    with pytest.raises(KeyError):
        async with pool.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            raise KeyError


async def _on_a_connection(pool: Pool) -> None:
    async with pool.acquire() as connection:
        async with connection.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
        assert await connection.fetchval("SELECT 1") == 1


async def _one_statement(pool: Pool) -> None:
    await pool.execute("INSERT INTO t VALUES (1)")
    await pool.fetch("SELECT x FROM t LIMIT 1")


SCENARIOS = [_acquire, _dirty, _commit, _roll_back, _on_a_connection, _one_statement]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_b09_cancelled_anywhere(
    dsn: str, make_pool: MakePool, scenario: Callable[[Pool], Awaitable[None]]
) -> None:
    """Wherever it is cancelled: figures right, nothing leaked, no session in a transaction."""
    pool = make_pool(dsn, min_size=1, max_size=2)
    await pool.execute("CREATE TABLE t (x int)")

    async def check(at: int) -> None:
        assert current_transaction() is None
        await settled(pool)
        check_law(pool)
        assert pool.stats().used == 0
        async with pool.acquire() as one, pool.acquire() as other:
            for connection in (one, other):
                slot = connection._borrow.slot
                assert not slot.session.in_transaction
                assert not slot.session.unsettled
                assert await connection.fetchval("SELECT 1") == 1

    async def run() -> None:
        await scenario(pool)

    assert await cancel_everywhere(run, check) >= 1


async def test_b09_cancelled_while_queueing(dsn: str, make_pool: MakePool) -> None:
    """A borrower that is cancelled at any wait behind another leaves the queue in order."""
    pool = make_pool(dsn, max_size=1)

    held = [await pool.acquire()]

    async def queue() -> None:
        asyncio.get_running_loop().call_soon(held.pop().release)
        await _acquire(pool)

    async def check(at: int) -> None:
        await settled(pool)
        check_law(pool)
        assert (pool.stats().used, pool.stats().waiting) == (0, 0)
        held.append(await pool.acquire())

    assert await cancel_everywhere(queue, check) >= 1
    held.pop().release()


async def test_b09_open_and_close_cancelled_anywhere(dsn: str) -> None:
    """Opening and closing can be cancelled anywhere, and then closed in earnest."""
    pools: list[Pool] = []

    async def live() -> None:
        pool = Pool(dsn, min_size=2, max_size=3)
        pools.append(pool)
        async with pool:
            await pool.fetchval("SELECT 1")

    async def check(at: int) -> None:
        pool = pools.pop()
        await pool.close()
        check_law(pool)
        assert pool.stats().size == 0

    assert await cancel_everywhere(live, check) >= 1


def test_b09_on_a_stub_with_hooks() -> None:
    """Whatever is cancelled, a transaction ends in one outcome, and its hooks run accordingly."""
    ran: list[str] = []

    async def main() -> None:
        driver = StubDriver(connect_latency=0.1, latency=0.01)
        pool = Pool(driver, min_size=1, max_size=2, clock=VirtualClock())

        async def scenario() -> None:
            async with pool.transaction() as tx:
                tx.on_commit(_hook("commit"))
                tx.on_rollback(_hook("rollback"))
                await tx.execute("INSERT")

        def _hook(name: str) -> Callable[[], Awaitable[None]]:
            async def hook() -> None:
                await asyncio.sleep(0.01)
                ran.append(name)

            return hook

        async def check(at: int) -> None:
            await asyncio.sleep(1)
            check_law(pool)
            assert pool.stats().used == pool.stats().connecting == 0
            assert not any(session.in_transaction for session in driver.open_sessions)
            committed = any("COMMIT" in session.log for session in driver.sessions)
            begun = any("INSERT" in session.log for session in driver.sessions)
            assert ran in ([[], ["rollback"], ["commit"]] if not committed else [["commit"]])
            assert not begun or ran
            ran.clear()
            for session in driver.sessions:
                session.log.clear()

        assert await cancel_everywhere(scenario, check) >= 5
        await pool.close()

    run_virtual(main)


async def test_b10_entering_a_transaction_is_one_unit(dsn: str, make_pool: MakePool) -> None:
    """When BEGIN fails, the connection that was borrowed for it is back."""
    pool = make_pool(dsn, max_size=1)
    async with pool.acquire() as connection:
        session = connection._borrow.slot.session
    session.abort()
    async with pool.transaction() as tx:  # the dead connection is not lent
        assert await tx.fetchval("SELECT 1") == 1
    assert pool.stats().used == 0


def test_b10_a_failing_begin_leaks_nothing() -> None:
    """BEGIN that fails gives the connection back and is told as it is."""

    async def main() -> None:
        driver = StubDriver()
        driver.failures["BEGIN"] = LookupError("no")
        async with Pool(driver, max_size=1, clock=VirtualClock()) as pool:
            for _ in range(3):
                with pytest.raises(LookupError):
                    async with pool.transaction():
                        pass
                assert current_transaction() is None
            await asyncio.sleep(1)
            stats = pool.stats()
            assert (stats.used, stats.connecting) == (0, 0)
            check_law(pool)

    run_virtual(main)


_LONG = {
    "postgresql": "SELECT pg_sleep(30)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n",
}


async def test_b11_a_cancelled_query_gives_its_connection_back(
    dsn: str, make_pool: MakePool
) -> None:
    """The server is told to stop, and the very connection serves the next borrower."""
    pool = make_pool(dsn, max_size=1)
    async with pool.acquire() as connection:
        session = connection._borrow.slot.session

    async def query() -> None:
        async with pool.acquire() as connection:
            running.set()
            await connection.fetchval(_LONG[dsn.partition(":")[0]])

    running = asyncio.Event()
    task = asyncio.create_task(query())
    await running.wait()
    for _ in range(20):
        await asyncio.sleep(0.001)  # let the statement reach the server
    task.cancel()
    await asyncio.wait([task])
    async with asyncio.timeout(10), pool.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
        assert connection._borrow.slot.session is session


async def test_b11_a_timeout_of_one_statement(dsn: str, make_pool: MakePool) -> None:
    """A statement that is out of time raises TimeoutError; the connection can be used on."""
    pool = make_pool(dsn, max_size=1)
    async with pool.acquire() as connection:
        with pytest.raises(TimeoutError):
            await connection.fetchval(_LONG[dsn.partition(":")[0]], timeout=0.05)
        assert await connection.fetchval("SELECT 1") == 1


def test_b12_a_connect_survives_its_requester() -> None:
    """Who caused a connect may leave: it goes on, and serves the next."""

    async def main() -> None:
        driver = StubDriver(connect_latency=1.0)
        async with Pool(driver, min_size=0, max_size=2, lazy=True, clock=VirtualClock()) as pool:
            requester = asyncio.create_task(_borrow(pool))
            await asyncio.sleep(0.5)
            requester.cancel()
            await asyncio.wait([requester])
            assert pool.stats().connecting == 1
            began = asyncio.get_running_loop().time()
            await _borrow(pool)
            assert asyncio.get_running_loop().time() - began == pytest.approx(0.5)
            assert driver.attempts == 1

    run_virtual(main)


async def _borrow(pool: Pool) -> Any:
    async with pool.acquire() as connection:
        return connection


async def test_closing_a_pool_that_is_still_opening() -> None:
    """Who gives up closing a pool whose server does not answer leaves no attempt behind."""
    driver = StubDriver()
    driver.hang = True
    pool = Pool(driver)
    opening = asyncio.create_task(pool.open())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await pool.close()
    await asyncio.wait([opening])
    assert opening.cancelled()
