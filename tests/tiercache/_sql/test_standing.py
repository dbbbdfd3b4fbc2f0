"""What is asked about transactions, on real databases."""

from pathlib import Path

import pytest

from poolkit import Pool
from tests.servers.postgres import PostgresServer
from tiercache._sql.places import place_of
from tiercache._sql.program import Job, Need
from tiercache._sql.standing import PostgresStanding, SqliteStanding


class Rollback(Exception):
    """Ends a transaction without a commit."""


async def test_the_fate_of_a_transaction(private_postgres: PostgresServer) -> None:
    """Open, committed, aborted; what the server knows nothing of is over. Nobody else is there."""
    standing = PostgresStanding()
    assert standing.number is not None
    async with Pool(private_postgres.create_database()) as pool:
        place = place_of(pool, 5.0, 1)

        async def fate(number: str) -> str:
            return await place.run(Job("strict", lambda: standing.fate(number), Need.READ))

        async with pool.transaction() as tx:
            committed = str(await tx.fetchval(standing.number.sql))
            assert await fate(committed) == "open"
        assert await fate(committed) == "committed"
        with pytest.raises(Rollback):
            async with pool.transaction() as tx:
                aborted = str(await tx.fetchval(standing.number.sql))
                raise Rollback
        assert await fate(aborted) == "aborted"
        assert await fate("123456789012") == "over"
        await place.aclose()


async def test_the_horizon_waits_for_a_transaction_that_is_alone(
    private_postgres: PostgresServer,
) -> None:
    """Also when nobody has committed since it began, which a snapshot's ``xmax`` would not see."""
    standing = PostgresStanding()
    async with Pool(private_postgres.create_database()) as pool:
        place = place_of(pool, 5.0, 1)

        async def oldest() -> int:
            return await place.run(Job("strict", standing.oldest, Need.READ))

        async with pool.transaction() as tx:
            await tx.fetchval("SELECT txid_current()")
            horizon = await place.run(Job("strict", standing.horizon, Need.READ))
            assert await oldest() < horizon
        assert await oldest() >= horizon
        identity = await place.run(Job("strict", standing.identity, Need.READ))
        assert identity.startswith("postgresql:")
        await place.aclose()


async def test_sqlite_by_the_right_to_write(sqlite_path: Path) -> None:
    """Who gets the right to write knows that the writers before are over, not how they ended."""
    standing = SqliteStanding()
    assert standing.number is None
    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        place = place_of(pool, 0.05, 1)

        async def fate() -> str:
            job = Job("strict", lambda: standing.fate(None), Need.WRITE, atomic=True)
            return await place.run(job)

        async with pool.transaction() as tx:
            await tx.execute("CREATE TABLE t (x INTEGER)")
            with pytest.raises(Exception, match="locked|turn|write"):
                await fate()
        assert await fate() == "over"
        identity = await place.run(Job("strict", standing.identity, Need.READ))
        assert identity.startswith("sqlite:")
        assert identity.endswith(str(sqlite_path.resolve()))
        await place.aclose()
