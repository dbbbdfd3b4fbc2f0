"""Strict keys in Redis, transactions in SQLite: there are no numbers, but one writer at a time."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from poolkit import Pool
from tests.servers.redis import RedisServer
from tests.tiercache.strict.conftest import table
from tests.tiercache.strict.table import (
    Reader,
    committing,
    dies_at_commit,
    ready,
    rename,
    upkeep,
)
from tiercache import Cache, RedisTier


class Rollback(Exception):
    """Ends a transaction without a commit."""


@pytest.fixture
async def pool(sqlite_path: Path) -> AsyncIterator[Pool]:
    """A pool on a file with the table."""
    async with Pool(f"sqlite:///{sqlite_path}", max_size=4) as pool:
        await table(pool)
        yield pool


@pytest_asyncio.fixture
async def caches(
    make_cache: Callable[..., Cache], redis_url: str, pool: Pool
) -> AsyncIterator[tuple[Reader, Cache]]:
    """A strict reader and a writer that know the pool."""
    made = [make_cache(RedisTier(redis_url, timeout=5), outbox=pool) for _ in range(2)]
    reader = Reader(made[0], pool)
    await ready(made[0])
    await reader.name(1)
    yield reader, made[1]
    for cache in made:
        await cache.aclose()


async def test_a_mark_is_there_before_the_commit(caches: tuple[Reader, Cache], pool: Pool) -> None:
    """While a transaction is about to commit, readers go round."""
    reader, writer = caches
    assert await reader.is_cached()
    async with committing(writer, pool, "new"):
        assert not await reader.is_cached()
        await reader.look()  # it is not over: nobody else may write
        assert await reader.name(1) == "old"
        assert not await reader.is_cached()
    assert await reader.name(1) == "new"
    assert await reader.is_cached()


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_dead_mark(caches: tuple[Reader, Cache], pool: Pool, end: str) -> None:
    """A mark whose transaction is over is taken away with what it marked, however that ended."""
    reader, writer = caches
    dies_at_commit(writer)
    error = Rollback() if end == "rollback" else None
    async with committing(writer, pool, "new", error=error):
        pass
    expected = "old" if end == "rollback" else "new"
    assert [await reader.name(1) for _ in range(2)] == [expected] * 2
    assert not await reader.is_cached()
    await reader.look()
    assert await reader.name(1) == expected
    assert await reader.is_cached()


async def test_redis_is_emptied_between_mark_and_commit(
    caches: tuple[Reader, Cache], pool: Pool, redis_server: RedisServer
) -> None:
    """Nothing is cached before somebody else may write again."""
    reader, writer = caches
    dies_at_commit(writer)
    async with committing(writer, pool, "new"):
        redis_server.cli("FLUSHALL")
        assert not await reader.is_cached()
        assert not await upkeep(reader.cache).establish()
        assert not await reader.is_cached()
    assert await reader.name(1) == "new"
    await ready(reader.cache)
    await reader.name(1)
    assert await reader.is_cached()


async def test_a_transaction_that_is_run_again(
    caches: tuple[Reader, Cache], pool: Pool, redis_server: RedisServer
) -> None:
    """A transaction of a few milliseconds, often: never an old value, and no mark is left."""
    reader, writer = caches
    for n in range(10):
        async with pool.transaction() as tx:
            await rename(writer, tx, str(n))
        assert await reader.name(1) == str(n)
    keys = redis_server.cli("HKEYS", "{tc1:default}:h")
    assert sorted(keys) == ["epoch", "ready", "run"]
