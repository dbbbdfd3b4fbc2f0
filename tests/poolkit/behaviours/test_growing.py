"""Behaviours 13 to 16, 19 and 22: growing, ageing and steering, in virtual time."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import AcquireTimeout, ConnectFailed, Pool
from poolkit.driver import Fault
from poolkit.testing import StubDriver, VirtualClock, run_virtual
from tests.poolkit.conftest import check_law


class Gone(Exception):
    """An error that says that the server goes away."""


def virtual_pool(driver: StubDriver, **config: Any) -> Pool:
    """Return a pool on a stub in virtual time."""
    return Pool(driver, clock=VirtualClock(), **config)


def test_b13_a_spike_does_not_open_all() -> None:
    """50 requests of 2 ms, with connects of 150 ms and 5 at hand, end with at most 7."""

    async def main() -> None:
        driver = StubDriver(connect_latency=0.15, latency=0.002)
        async with virtual_pool(driver, min_size=5, max_size=20) as pool:
            await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(50)))
            await asyncio.sleep(1)
            assert pool.stats().size <= 7
            assert driver.attempts <= 7

    run_virtual(main)


def test_b13_a_lasting_load_does_grow() -> None:
    """What really is too little becomes more, up to max_size."""

    async def main() -> None:
        driver = StubDriver(connect_latency=0.05, latency=1.0)
        async with virtual_pool(driver, min_size=1, max_size=8) as pool:
            await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(40)))
            assert pool.stats().size == 8

    run_virtual(main)


@pytest.mark.parametrize("cause", ["idle", "lifetime", "kill", "check", "recycle"])
def test_b14_the_floor_is_kept(cause: str) -> None:
    """Whatever ends connections, min_size of them are there again."""

    async def main() -> None:
        driver = StubDriver(connect_latency=0.01)
        limits = {
            "idle": {"idle_timeout": 10.0},
            "lifetime": {"max_lifetime": 30.0},
            "check": {"keepalive": 5.0},
        }
        async with virtual_pool(driver, min_size=3, max_size=6, **limits.get(cause, {})) as pool:
            before = list(driver.open_sessions)
            if cause == "kill":
                for session in before:
                    session.kill()
            if cause == "check":
                driver.failures["PING"] = ConnectionError("no answer")
                await asyncio.sleep(12)
                driver.failures.clear()
            if cause == "recycle":
                pool.recycle()
            await asyncio.sleep(40)
            assert pool.stats().idle == 3
            assert len(driver.open_sessions) == 3
            if cause != "idle":
                assert not set(before) & set(driver.open_sessions)
            check_law(pool)

    run_virtual(main)


def test_b15_idle_ones_leave() -> None:
    """Those above min_size leave after idle_timeout; the others stay."""

    async def main() -> None:
        driver = StubDriver(latency=0.1)
        async with virtual_pool(
            driver, min_size=2, max_size=6, idle_timeout=600, max_lifetime=None
        ) as pool:
            await asyncio.gather(*(pool.fetchval("SELECT 1") for _ in range(40)))
            assert pool.stats().size == 6
            await asyncio.sleep(590)
            assert pool.stats().size == 6
            await asyncio.sleep(30)
            assert pool.stats().size == 2

    run_virtual(main)


def test_b15_a_cohort_does_not_end_at_once() -> None:
    """Connections born together end one by one, lifetime / size apart."""

    async def main() -> None:
        driver = StubDriver()
        size, lifetime = 6, 1800.0
        async with virtual_pool(
            driver, min_size=size, max_size=size, max_lifetime=lifetime, idle_timeout=None
        ) as pool:
            await asyncio.sleep(3 * lifetime)
            assert pool.stats().size == size
        births = driver.attempt_times[size:]
        assert len(births) >= 2 * size
        gaps = [later - earlier for earlier, later in itertools.pairwise(births)]
        assert min(gaps) >= lifetime / size * 0.99

    run_virtual(main)


def test_b15_a_busy_connection_ends_when_it_comes_back() -> None:
    """Age ends a connection between two borrowers, never under one."""

    async def main() -> None:
        driver = StubDriver()
        async with virtual_pool(driver, max_size=1, max_lifetime=10.0) as pool:
            async with pool.acquire() as connection:
                await asyncio.sleep(60)
                await connection.fetchval("SELECT 1")
            await asyncio.sleep(0.1)
            assert driver.sessions[0].closed
            async with pool.acquire() as connection:
                assert connection.raw is driver.sessions[1]

    run_virtual(main)


def test_b16_a_check_only_after_the_bypass_window() -> None:
    """A connection that was used within the last second is lent without a question."""

    async def main() -> None:
        driver = StubDriver()
        async with virtual_pool(driver, max_size=1, keepalive=None) as pool:
            for pause, pings in ((0.5, 0), (0.9, 0), (1.5, 1)):
                await asyncio.sleep(pause)
                await pool.fetchval("SELECT 1")
                assert driver.sessions[0].log.count("PING") == pings

    run_virtual(main)


def test_b16_keepalive_pings_what_lies_idle() -> None:
    """Idle connections hear from us, and a borrower in between does not wait for it."""

    async def main() -> None:
        driver = StubDriver()
        async with virtual_pool(
            driver, min_size=2, max_size=2, keepalive=30, validate_after=1000, idle_timeout=None
        ) as pool:
            await asyncio.sleep(100)
            assert all(session.log.count("PING") >= 2 for session in driver.sessions)
            check_law(pool)

    run_virtual(main)


def test_b16_a_ping_does_not_delay_a_borrower() -> None:
    """While one connection is pinged, another is lent; not all are pinged at once."""

    async def main() -> None:
        driver = StubDriver(latency=2.0)
        async with virtual_pool(
            driver, min_size=2, max_size=2, keepalive=30, validate_after=1000, idle_timeout=None
        ) as pool:
            loop = asyncio.get_running_loop()
            for _ in range(400):
                await asyncio.sleep(0.25)
                began = loop.time()
                async with pool.acquire():
                    pass
                assert loop.time() == began
            assert sum(session.log.count("PING") for session in driver.sessions) >= 2

    run_virtual(main)


def test_b18_a_server_that_goes_away_is_left_altogether() -> None:
    """An error that means eviction replaces the whole generation, those in use on their return."""

    async def main() -> None:
        driver = StubDriver()
        driver.faults[Gone] = Fault("57P01", evict=True)
        driver.failures["WRITE"] = Gone()
        async with virtual_pool(driver, min_size=3, max_size=3) as pool:
            old = list(driver.sessions)
            async with pool.acquire() as held:
                with pytest.raises(Gone):
                    await pool.execute("WRITE")
                await held.fetchval("SELECT 1")
            await asyncio.sleep(1)
            assert all(session.closed for session in old)
            assert pool.stats().idle == 3

    run_virtual(main)


def test_b19_reconnects_back_off() -> None:
    """Attempts come 0.1 s apart, doubled each time, ± 10 %, at most 30 s."""

    async def main() -> None:
        driver = StubDriver()
        async with virtual_pool(driver, max_size=4) as pool:
            driver.down = "gone"
            driver.sessions[0].kill()
            waiters = [asyncio.create_task(_borrow(pool, 200)) for _ in range(20)]
            await asyncio.sleep(150)
            gaps = _gaps(driver.attempt_times[1:])
            for number, gap in enumerate(gaps):
                middle = min(30.0, 0.1 * 2**number)
                assert 0.9 * middle <= gap <= 1.1 * middle + 0.01, (number, gap)
            assert len(gaps) >= 9
            driver.down = None
            await asyncio.gather(*waiters)
            check_law(pool)

    run_virtual(main)


def _gaps(times: list[float]) -> list[float]:
    """Return the pauses between attempts; those of one moment (several waiters) are one."""
    moments = sorted({round(time, 6) for time in times})
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


async def _borrow(pool: Pool, timeout: float | None = None) -> None:
    async with pool.acquire(timeout=timeout):
        pass


def test_b20_open_fails_at_once_with_the_cause() -> None:
    """A server that is down is told by open() and by first use, without waiting."""

    async def main() -> None:
        driver = StubDriver()
        driver.down = "down for maintenance"
        pool = virtual_pool(driver)
        for use in (pool.open, lambda: pool.fetchval("SELECT 1")):
            with pytest.raises(ConnectFailed, match="down for maintenance"):
                await use()  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < 1
        driver.down = None
        assert await pool.fetchval("SELECT 1") is None
        await pool.close()

    run_virtual(main)


def test_b20_a_lazy_pool_waits_for_its_server() -> None:
    """With lazy=True it starts without a server, and serves when that appears."""

    async def main() -> None:
        driver = StubDriver()
        driver.down = "not yet"
        async with virtual_pool(driver, lazy=True) as pool:
            with pytest.raises(AcquireTimeout, match="not yet"):
                await _borrow(pool, 5)
            waiter = asyncio.create_task(_borrow(pool, 60))
            await asyncio.sleep(10)
            driver.down = None
            await waiter

    run_virtual(main)


def test_b21_a_black_hole_takes_no_more_than_the_timeout() -> None:
    """Borrowing and giving back keep their times while nothing answers, and it recovers."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        driver = StubDriver()
        async with virtual_pool(driver, min_size=2, max_size=4, acquire_timeout=3) as pool:
            held = await pool.acquire()
            driver.hang = True
            await asyncio.sleep(2)
            began = loop.time()
            with pytest.raises(AcquireTimeout):
                await _borrow(pool)
            assert loop.time() - began == pytest.approx(3, rel=0.1)
            _ = held.raw  # it has to be reset
            held.release()
            driver.hang = False
            await asyncio.sleep(30)
            await _borrow(pool)
            stats = pool.stats()
            assert (stats.used, stats.connecting) == (0, 0)
            check_law(pool)

    run_virtual(main)


def test_b22_suspend_holds_and_resume_lets_go() -> None:
    """Borrowers wait while the pool is suspended, and are served in order when it resumes."""

    async def main() -> None:
        async with virtual_pool(StubDriver(), min_size=2, max_size=2) as pool:
            pool.suspend()
            waiters = [asyncio.create_task(_borrow(pool)) for _ in range(5)]
            await asyncio.sleep(5)
            assert not any(waiter.done() for waiter in waiters)
            assert pool.stats().waiting == 5
            pool.resume()
            await asyncio.gather(*waiters)
            pool.suspend()
            with pytest.raises(AcquireTimeout):
                await _borrow(pool, 1)

    run_virtual(main)


def test_b22_resize_works_live() -> None:
    """A larger pool opens more at once; shrinking below what is in use waits for returns."""

    async def main() -> None:
        driver = StubDriver(connect_latency=0.01)
        async with virtual_pool(driver, max_size=2) as pool:
            held = [await pool.acquire(), await pool.acquire()]
            waiter = asyncio.create_task(_hold(pool, 1))
            await asyncio.sleep(0.1)
            assert not waiter.done()
            pool.resize(max_size=4)
            await asyncio.sleep(0.1)
            assert pool.stats().used == 3
            pool.resize(max_size=1)
            await waiter
            assert pool.stats().used == 2
            for connection in held:
                await connection.fetchval("SELECT 1")
                connection.release()
            await asyncio.sleep(0.1)
            assert pool.stats().size == len(driver.open_sessions) == 1
            assert pool.config.max_size == 1
            check_law(pool)

    run_virtual(main)


async def _hold(pool: Pool, seconds: float) -> None:
    async with pool.acquire():
        await asyncio.sleep(seconds)


def test_b22_recycle_replaces_all_without_an_error() -> None:
    """Under load every connection is replaced, and nobody notices."""

    async def main() -> None:
        driver = StubDriver(connect_latency=0.01, latency=0.01)
        async with virtual_pool(driver, min_size=4, max_size=4) as pool:
            load = [asyncio.create_task(pool.fetchval("SELECT 1")) for _ in range(200)]
            await asyncio.sleep(0.05)
            old = list(driver.open_sessions)
            pool.recycle()
            await asyncio.gather(*load)
            await asyncio.sleep(1)
            assert all(session.closed for session in old)
            assert pool.stats().size == 4

    run_virtual(main)


def test_b26_hooks_and_their_failures() -> None:
    """init once per connection, setup per borrow, reset per return; failing closes that one."""

    async def main() -> None:
        calls: list[str] = []
        broken: set[str] = set()

        def hook(name: str) -> Callable[[Any], Any]:
            async def call(connection: Any) -> None:
                calls.append(name)
                if name in broken:
                    raise LookupError(name)
                await connection.execute(name)

            return call

        driver = StubDriver()
        async with virtual_pool(
            driver, max_size=1, init=hook("init"), setup=hook("setup"), reset=hook("reset")
        ) as pool:
            for _ in range(3):
                await _borrow(pool)
                await asyncio.sleep(0.1)
            assert calls == ["init", *("setup", "reset") * 3]
            for name in ("setup", "reset"):
                broken.add(name)
                calls.clear()
                doomed = driver.open_sessions[0]
                if name == "setup":
                    with pytest.raises(LookupError):
                        await _borrow(pool)
                else:
                    await _borrow(pool)
                await asyncio.sleep(0.5)
                assert doomed.closed
                broken.clear()
            await _borrow(pool)
            check_law(pool)
        broken.add("init")
        with pytest.raises(LookupError):
            await virtual_pool(driver, init=hook("init")).open()
        assert not driver.open_sessions

    run_virtual(main)
