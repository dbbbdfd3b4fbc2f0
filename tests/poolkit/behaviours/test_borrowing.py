"""Behaviours 1 to 8: borrowing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import AcquireTimeout, ConnectionVoid, Pool, PoolError, TooManyWaiters
from poolkit.testing import StubDriver, VirtualClock, run_virtual

MakePool = Callable[..., Pool]


@pytest.mark.parametrize("borrowers", [1, 5, 10, 20, 100])
async def test_b01_all_borrowers_succeed_within_the_size(
    dsn: str, make_pool: MakePool, borrowers: int
) -> None:
    """Many borrowers over few connections all succeed, and there are never too many of those."""
    pool = make_pool(dsn, min_size=5, max_size=10)
    sizes: list[int] = []

    async def borrow(number: int) -> int:
        async with pool.acquire() as connection:
            sizes.append(pool.stats().size)
            value: int = await connection.fetchval(f"SELECT {number}")
            return value

    results = await asyncio.gather(*map(borrow, range(borrowers)))
    assert results == list(range(borrowers))
    assert max(sizes) <= 10
    assert pool.stats().acquired == pool.stats().released == borrowers


async def test_b02_first_come_first_served(dsn: str, make_pool: MakePool) -> None:
    """Waiters are served in the order of their arrival."""
    pool = make_pool(dsn, max_size=1)
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with pool.acquire():
            served.append(number)
            await asyncio.sleep(0)

    async with pool.acquire():
        tasks = [asyncio.create_task(borrow(number)) for number in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert served == list(range(20))


async def test_b02_a_newcomer_does_not_overtake(dsn: str, make_pool: MakePool) -> None:
    """A connection goes from hand to hand: who asks right after a release is behind the waiter."""
    pool = make_pool(dsn, max_size=1)
    served: list[str] = []

    async def borrow(name: str) -> None:
        async with pool.acquire():
            served.append(name)

    async with pool.acquire():
        waiter = asyncio.create_task(borrow("waiter"))
        await asyncio.sleep(0)
    await borrow("newcomer")  # without a tick of the loop since the release
    await waiter
    assert served == ["waiter", "newcomer"]


async def test_b03_most_recently_used_first(dsn: str, make_pool: MakePool) -> None:
    """The connection that came back last is handed out first."""
    pool = make_pool(dsn, min_size=3, max_size=3)
    async with pool.acquire() as first:
        raw = first.raw
        async with pool.acquire(), pool.acquire():
            pass
        first._borrow.slot.dirt = type(first._borrow.slot.dirt)(0)
    async with pool.acquire() as again:
        assert again.raw is raw


def test_b04_a_wait_ends_in_time() -> None:
    """The default of 30 s and the override of a call both hold, and the pool stays usable."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Pool(StubDriver(), max_size=1, clock=VirtualClock()) as pool:
            async with pool.acquire():
                for override, expected in ((None, 30.0), (0.5, 0.5)):
                    began = loop.time()
                    waiter = asyncio.create_task(_borrow(pool, override))
                    await asyncio.wait([waiter])
                    assert isinstance(waiter.exception(), AcquireTimeout)
                    assert loop.time() - began == pytest.approx(expected, rel=0.1)
                assert pool.stats().timeouts == 2
                assert pool.stats().waiting == 0
            assert await pool.fetchval("SELECT 1") is None

    run_virtual(main)


async def _borrow(pool: Pool, timeout: float | None = None) -> None:
    async with pool.acquire(timeout=timeout):
        pass


async def test_b04_the_error_tells_what_happened(dsn: str, make_pool: MakePool) -> None:
    """It has the pool's name and figures, and the oldest holder."""
    pool = make_pool(dsn, max_size=2, name="orders")
    holders = asyncio.Event()

    async def hold() -> None:
        async with pool.acquire():
            await holders.wait()

    tasks = [asyncio.create_task(hold(), name=f"holder-{number}") for number in range(2)]
    while pool.stats().used < 2:
        await asyncio.sleep(0)
    with pytest.raises(AcquireTimeout) as caught:
        await _borrow(pool, 0.01)
    error = caught.value
    assert (error.pool, error.timeout) == ("orders", 0.01)
    assert (error.size, error.used, error.idle, error.max_size) == (2, 2, 0, 2)
    assert error.holder is not None
    assert "holder-" in error.holder
    for word in ("orders", "0.01 s", "2 used", error.holder):
        assert word in str(error)
    assert isinstance(error, TimeoutError)
    holders.set()
    await asyncio.gather(*tasks)


def test_b04_the_error_has_the_last_connect_error() -> None:
    """Where the server is down, the wait that ends in vain says so."""

    async def main() -> None:
        driver = StubDriver()
        driver.down = "the server is being repainted"
        async with Pool(driver, lazy=True, clock=VirtualClock()) as pool:
            with pytest.raises(AcquireTimeout, match="being repainted") as caught:
                await _borrow(pool, 1.0)
            assert isinstance(caught.value.last_error, ConnectionError)

    run_virtual(main)


async def test_b05_too_many_waiters(dsn: str, make_pool: MakePool) -> None:
    """Beyond max_waiting a request fails at once; those in the queue are served."""
    pool = make_pool(dsn, max_size=1, max_waiting=2)
    async with pool.acquire():
        waiters = [asyncio.create_task(_borrow(pool)) for _ in range(2)]
        await asyncio.sleep(0)
        refused = asyncio.create_task(_borrow(pool))
        await asyncio.wait([refused])
        error = refused.exception()
        assert isinstance(error, TooManyWaiters)
        assert (error.waiting, error.max_waiting) == (2, 2)
    await asyncio.gather(*waiters)


async def test_b06_who_left_the_queue_loses_nothing(dsn: str, make_pool: MakePool) -> None:
    """Cancelled and timed out waiters, also in the moment of the hand-over, lose no connection."""
    pool = make_pool(dsn, max_size=1)
    for moment in range(4):
        async with pool.acquire():
            cancelled = asyncio.create_task(_borrow(pool))
            patient = asyncio.create_task(_borrow(pool))
            await asyncio.sleep(0)
            if moment == 0:
                cancelled.cancel()
                await asyncio.sleep(0)
                assert pool.stats().waiting == 1
            if moment == 1:
                cancelled.cancel()  # still in the queue when the connection comes back
        if moment == 2:
            cancelled.cancel()  # it has the connection and has not run since
        if moment == 3:
            await asyncio.sleep(0)
            cancelled.cancel()
        await asyncio.wait([cancelled, patient])
        assert patient.exception() is None
        stats = pool.stats()
        assert (stats.used, stats.idle, stats.waiting) == (0, 1, 0)


async def test_b07_a_wait_for_oneself_is_refused(dsn: str, make_pool: MakePool) -> None:
    """A task that holds every connection and asks for one more is told, at once."""
    pool = make_pool(dsn, max_size=2)
    async with pool.acquire(), pool.acquire():
        with pytest.raises(PoolError, match="holds all 2 connections") as caught:
            await _borrow(pool)
        assert not isinstance(caught.value, AcquireTimeout)
    await _borrow(pool)


async def test_b08_use_after_release(dsn: str, make_pool: MakePool) -> None:
    """A connection that was given back is void, and so are its transactions."""
    pool = make_pool(dsn, max_size=1)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
    uses: list[Callable[[], Any]] = [
        lambda: connection.execute("SELECT 1"),
        lambda: connection.fetch("SELECT 1"),
        lambda: connection.fetchrow("SELECT 1"),
        lambda: connection.fetchval("SELECT 1"),
        lambda: connection.executemany("SELECT 1", []),
        lambda: transaction.__aenter__(),
    ]
    for use in uses:
        with pytest.raises(ConnectionVoid, match="given back"):
            await use()
    with pytest.raises(ConnectionVoid):
        connection.transaction()
    with pytest.raises(ConnectionVoid):
        _ = connection.raw


async def test_b08_a_transaction_is_void_after_its_connection(
    dsn: str, make_pool: MakePool
) -> None:
    """Giving a connection back inside its transaction rolls that back and voids it."""
    pool = make_pool(dsn, max_size=1)
    await pool.execute("CREATE TABLE t (x int)")
    with pytest.raises(ConnectionVoid):
        async with pool.acquire() as connection, connection.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            connection.release()
            with pytest.raises(ConnectionVoid):
                await tx.execute("INSERT INTO t VALUES (2)")
    assert await pool.fetchval("SELECT count(*) FROM t") == 0


async def test_b08_double_release_is_nothing(dsn: str, make_pool: MakePool) -> None:
    """A second release does not give back what another has by now."""
    pool = make_pool(dsn, max_size=1)
    first = await pool.acquire()
    first.release()
    second = await pool.acquire()
    first.release()
    assert pool.stats().used == 1
    assert await second.fetchval("SELECT 1") == 1
    second.release()
    assert pool.stats().used == 0


async def test_acquire_and_release_do_not_touch_the_loop(make_pool: MakePool, dsn: str) -> None:
    """Borrowing an idle clean connection and giving it back takes not one tick of the loop."""
    pool = make_pool(dsn)
    await pool.open()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    asyncio.get_running_loop().call_soon(tick)
    async with pool.acquire():
        pass
    assert ticks == 0
