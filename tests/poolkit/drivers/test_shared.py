"""Reads that share a connection and a moment."""

import asyncio
from pathlib import Path

import pytest

from poolkit import Pool

SLOW = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000) "
    "SELECT count(*) FROM n"
)


@pytest.fixture
async def pool(sqlite_path: Path) -> Pool:
    """A pool on a file with 50 rows that count."""
    pool = Pool(f"sqlite:///{sqlite_path}")
    await pool.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)")
    await pool.executemany("INSERT INTO t VALUES ($1, 0)", [(at,) for at in range(50)])
    return pool


async def test_everybody_reads_what_was_committed_before(pool: Pool) -> None:
    """However reads are put together, nobody reads an older value than the one they wrote."""

    async def count(number: int) -> None:
        for n in range(1, 21):
            await pool.execute("UPDATE t SET n = $1 WHERE id = $2", n, number)
            assert await pool.fetchval("SELECT n FROM t WHERE id = $1", number) == n

    async with pool, asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(count(number))


async def test_giving_up_a_read_interrupts_that_one_alone(pool: Pool) -> None:
    """A cancelled read is interrupted; those asked for with it are answered."""
    async with pool, asyncio.timeout(30):
        slow = asyncio.create_task(pool.fetchval(SLOW))
        others = [
            asyncio.create_task(pool.fetchval("SELECT n FROM t WHERE id = $1", at))
            for at in range(20)
        ]
        assert await asyncio.gather(*others) == [0] * 20  # another thread comes to their help
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await pool.fetchval("SELECT count(*) FROM t") == 50


async def test_a_failing_read_fails_alone(pool: Pool) -> None:
    """An error in one of the reads that share a moment is that one's."""
    async with pool, asyncio.timeout(30):
        results = await asyncio.gather(
            pool.fetchval("SELECT n FROM t WHERE id = 1"),
            pool.fetchval("SELECT missing FROM t"),
            pool.fetchval("SELECT count(*) FROM t"),
            return_exceptions=True,
        )
    assert results[0] == 0
    assert "no such column" in str(results[1])
    assert results[2] == 50
