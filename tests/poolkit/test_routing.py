"""Read-only transactions on replicas that are close enough behind."""

import asyncio
from collections.abc import Callable

import pytest

from poolkit import Pool
from poolkit.testing import StubDriver, StubSession, VirtualClock, run_virtual
from tests.servers.postgres import PostgresServer

MakePool = Callable[..., Pool]


class LaggingSession(StubSession):
    """A session of a replica."""

    def __init__(self, driver: "Replica") -> None:
        super().__init__(driver)
        self._replica = driver

    async def lag(self, timeout: float) -> float:
        """Return the scripted lag."""
        self._replica.asked += 1
        return self._replica.behind


class Replica(StubDriver):
    """A replica that is ``behind`` so many seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.behind = 0.0
        self.asked = 0

    async def connect(self, timeout: float) -> StubSession:
        """Make a session that knows its lag."""
        await super().connect(timeout)
        self.sessions[-1] = LaggingSession(self)
        return self.sessions[-1]


def _transactions(driver: StubDriver) -> int:
    return sum(session.log.count("BEGIN") for session in driver.sessions)


async def _read(pool: Pool, times: int = 1) -> None:
    for _ in range(times):
        async with pool.transaction(readonly=True) as tx:
            await tx.fetch("SELECT 1")


def test_readonly_goes_to_the_replicas_in_turn() -> None:
    """Reads are spread over the replicas, writes stay at the primary."""

    async def main() -> None:
        primary, one, two = StubDriver(), Replica(), Replica()
        async with Pool(primary, replicas=[one, two], clock=VirtualClock()) as pool:
            await _read(pool, 10)
            async with pool.transaction():
                pass
            assert (_transactions(primary), _transactions(one), _transactions(two)) == (1, 5, 5)
        assert not [*primary.open_sessions, *one.open_sessions, *two.open_sessions]

    run_virtual(main)


def test_a_replica_that_is_behind_is_left_alone() -> None:
    """Beyond max_lag the primary reads, until the replica has caught up."""

    async def main() -> None:
        primary, replica = StubDriver(), Replica()
        async with Pool(primary, replicas=[replica], max_lag=2.0, clock=VirtualClock()) as pool:
            await _read(pool)
            replica.behind = 60.0
            await asyncio.sleep(1.5)
            await _read(pool, 3)
            assert (_transactions(primary), _transactions(replica)) == (3, 1)
            replica.behind = 0.5
            await asyncio.sleep(5)
            await _read(pool)
            assert (_transactions(primary), _transactions(replica)) == (3, 2)

    run_virtual(main)


def test_lag_is_not_asked_for_at_every_read() -> None:
    """A measurement is believed for half of max_lag."""

    async def main() -> None:
        replica = Replica()
        async with Pool(
            StubDriver(), replicas=[replica], max_lag=2.0, clock=VirtualClock()
        ) as pool:
            for _ in range(40):
                await _read(pool)
                await asyncio.sleep(0.1)
            assert 3 <= replica.asked <= 5

    run_virtual(main)


def test_a_replica_that_is_down_costs_the_reader_little() -> None:
    """The pool opens without it, the primary reads, and it is used when it appears."""

    async def main() -> None:
        primary, replica = StubDriver(), Replica()
        replica.down = "not there"
        async with Pool(primary, replicas=[replica], clock=VirtualClock()) as pool:
            began = asyncio.get_running_loop().time()
            await _read(pool, 20)
            assert asyncio.get_running_loop().time() - began <= pool.config.max_lag
            assert _transactions(primary) == 20
            replica.down = None
            await asyncio.sleep(40)
            await _read(pool)
            assert _transactions(replica) == 1

    run_virtual(main)


async def test_b32_readonly_on_a_real_standby(
    private_postgres: PostgresServer, make_pool: MakePool
) -> None:
    """A standby reads; once its replay is paused and behind, the primary does."""
    await asyncio.to_thread(private_postgres.psql, "CREATE TABLE t (x int)")
    standby = await asyncio.to_thread(private_postgres.standby)
    with standby:
        await asyncio.to_thread(standby.catch_up)
        pool = make_pool(private_postgres.dsn, replicas=[standby.dsn], max_lag=0.2)

        async def on_standby() -> bool:
            async with pool.transaction(readonly=True) as tx:
                found: bool = await tx.fetchval("SELECT pg_is_in_recovery()")
                return found

        assert await on_standby()
        recovering = "SELECT pg_is_in_recovery()"
        assert await pool.run(lambda tx: tx.fetchval(recovering), readonly=True)
        assert not await pool.run(lambda tx: tx.fetchval(recovering))
        pool.resize(max_size=3)
        assert [reader.stats().max_size for reader in pool._readers] == [3]
        await asyncio.to_thread(standby.psql, "SELECT pg_wal_replay_pause()")
        async with asyncio.timeout(20):
            while await on_standby():
                await pool.execute("INSERT INTO t VALUES (1)")
                await asyncio.sleep(0.01)
        await asyncio.to_thread(standby.psql, "SELECT pg_wal_replay_resume()")
        async with pool.transaction() as tx:
            assert not await tx.fetchval("SELECT pg_is_in_recovery()")


def test_replicas_are_checked_like_the_primary() -> None:
    """A replica's URL is refused with the typo in it."""
    with pytest.raises(ValueError, match="postgresq"):
        Pool("postgresql://localhost/a", replicas=["postgresq://localhost/a"])
