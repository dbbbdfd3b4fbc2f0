"""Fixtures for the tests of poolkit: a database of each kind, and pools that are audited."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool


@pytest.fixture(params=["postgresql", "sqlite"])
def dsn(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("sqlite_path")
        return f"sqlite:///{path}"
    dsn: str = request.getfixturevalue("postgres_dsn")
    return dsn


@pytest.fixture
def sqlite_dsn(sqlite_path: Path) -> str:
    """The URL of an empty SQLite database."""
    return f"sqlite:///{sqlite_path}"


def check_law(pool: Pool) -> None:
    """Hold a pool's figures to the law."""
    stats = pool.stats()
    assert stats.idle + stats.used + stats.connecting == stats.size <= stats.max_size
    assert stats.acquired == stats.released + stats.used


@pytest.fixture
async def make_pool() -> AsyncIterator[Callable[..., Pool]]:
    """Makes pools that are closed, and audited, when the test ends."""
    pools: list[Pool] = []

    def make(*args: Any, **config: Any) -> Pool:
        pool = Pool(*args, **config)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        check_law(pool)
        await pool.close(timeout=1)
        assert pool.stats().size == 0
        check_law(pool)
