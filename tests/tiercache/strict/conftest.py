"""Caches and a table for these tests; nobody looks at the marks but the test."""

from collections.abc import AsyncIterator

import pytest

from poolkit import Pool
from tests.caches import clock, make_cache

__all__ = ["clock", "make_cache"]


@pytest.fixture(autouse=True)
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave dead marks alone until the test has somebody look."""
    monkeypatch.setattr("tiercache.strict.upkeep.LOOK_EVERY", 3600.0)


async def table(pool: Pool) -> None:
    """Make the table and its row."""
    await pool.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    await pool.execute("INSERT INTO users VALUES (1, 'old'), (2, 'other')")


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a database with the table."""
    async with Pool(postgres_dsn, max_size=6) as pool:
        await table(pool)
        yield pool
