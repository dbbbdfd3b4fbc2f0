"""Strict keys without Redis: the transaction replaces the tokens in the tier's own database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from poolkit import Pool
from tests.tiercache.strict.conftest import table
from tests.tiercache.strict.table import (
    Gate,
    Reader,
    committing,
    dies_at_commit,
    rename,
    strict_of,
)
from tiercache import Cache, DatabaseTier, MemoryTier, PolicyError


class Rollback(Exception):
    """Ends a transaction without a commit."""


@pytest.fixture(params=["postgresql", "sqlite"])
def dsn(request: pytest.FixtureRequest, sqlite_path: Path) -> str:
    """A database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{sqlite_path}"
    found: str = request.getfixturevalue("postgres_dsn")
    return found


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool on it, with the table."""
    async with Pool(dsn, max_size=6) as pool:
        await table(pool)
        yield pool


@pytest_asyncio.fixture
async def caches(
    make_cache: Callable[..., Cache], pool: Pool
) -> AsyncIterator[tuple[Reader, Cache]]:
    """A strict reader, and a writer that has no such function."""
    made = [make_cache(MemoryTier(), DatabaseTier(pool, timeout=5), bus=None) for _ in range(2)]
    reader = Reader(made[0], pool)
    for cache in made:
        await cache.open()
    assert await reader.name(1) == "old"
    yield reader, made[1]
    for cache in made:
        await cache.aclose()


async def test_a_hit_is_of_the_database(caches: tuple[Reader, Cache]) -> None:
    """A strict value is shared by way of the database; L1 holds none."""
    reader, _ = caches
    assert await reader.is_cached()
    assert dict(reader.name.stats().hits) == {"l1": 0, "l2": 0, "l3": 1}
    assert reader.cache._parts.local.lookup("name:1", None) is None
    assert await reader.name.peek(1) == "old"


@pytest.mark.parametrize("way", ["tag", "key", "clear"])
async def test_the_commit_is_the_invalidation(
    caches: tuple[Reader, Cache], pool: Pool, way: str
) -> None:
    """Nothing need happen after a commit: what was cached before it is unreadable from then on."""
    reader, writer = caches
    dies_at_commit(writer)
    async with pool.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'new' WHERE id = 1")
        if way == "tag":
            await writer.invalidate(tags=["user:1"])
        elif way == "key":
            await writer.invalidate("name:1")
        else:
            await writer.clear()
        assert await asyncio.create_task(reader.name(1)) == "old"  # type: ignore[arg-type]
    assert strict_of(writer).expected
    assert await reader.name(1) == "new"
    assert await reader.is_cached()


async def test_a_rollback_invalidates_nothing(caches: tuple[Reader, Cache], pool: Pool) -> None:
    """What is rolled back leaves the old tokens, and the value, in place."""
    reader, writer = caches
    async with committing(writer, pool, "new", error=Rollback()):
        assert await reader.is_cached()
    assert await reader.is_cached()


async def test_a_load_from_before_the_commit_is_not_kept(
    caches: tuple[Reader, Cache], pool: Pool
) -> None:
    """Its fill finds other tokens; who came after the commit does not get what it brought."""
    reader, writer = caches
    await writer.invalidate(tags=["user:1"])
    reader.hold = gate = Gate()
    first = reader.start()
    await gate.reached.wait()
    dies_at_commit(writer)
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    late = reader.start()
    async with asyncio.timeout(10):
        while not reader.name.stats().coalesced:
            await asyncio.sleep(0.001)
    gate.opened.set()
    assert await first == "old"
    assert await late == "new"
    assert await reader.name(1) == "new"


async def test_a_load_inside_the_commit_is_not_kept(
    caches: tuple[Reader, Cache], pool: Pool
) -> None:
    """A lease taken while the tokens are being replaced is void when that has been committed."""
    reader, writer = caches
    await writer.invalidate(tags=["user:1"])
    dies_at_commit(writer)
    async with committing(writer, pool, "new"):
        reader.hold = gate = Gate()
        loading = reader.start()
        # On PostgreSQL the lease waits for the row that the transaction has locked, if it is new.
        await asyncio.wait((asyncio.create_task(gate.reached.wait()),), timeout=0.2)
    gate.opened.set()
    assert await loading in ("old", "new")
    assert await reader.name(1) == "new"


async def test_a_pool_of_another_database_is_refused(
    caches: tuple[Reader, Cache], tmp_path: Path, pool: Pool
) -> None:
    """Its transactions cannot replace tokens here: they are rolled back, and say why."""
    _, writer = caches
    async with Pool(f"sqlite:///{tmp_path / 'other.db'}") as other:
        await other.execute("CREATE TABLE t (x INTEGER)")
        with pytest.raises(PolicyError, match="DatabaseTier"):
            async with other.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                await writer.invalidate("name:1")
        assert await other.fetchval("SELECT count(*) FROM t") == 0
    assert strict_of(writer).expected


async def test_a_tier_from_a_url(make_cache: Callable[..., Cache], dsn: str, pool: Pool) -> None:
    """A tier that was given as a URL is in the database of a pool with the same address."""
    cache = make_cache(MemoryTier(), dsn, bus=None)
    reader = Reader(cache, pool)
    assert await reader.name(1) == "old"
    dies_at_commit(cache)
    async with pool.transaction() as tx:
        await rename(cache, tx, "new")
    assert await reader.name(1) == "new"
    await cache.aclose()


async def test_others_read_and_write_as_ever(
    caches: tuple[Reader, Cache], pool: Pool, make_cache: Callable[..., Cache]
) -> None:
    """A cache that nobody reads strictly asks once in a while and replaces no tokens."""
    plain = make_cache(DatabaseTier(pool, timeout=5), name="plain", bus=None)
    calls: list[Any] = []

    @plain.cached(ttl=60, key="k", tags=["t"])
    async def value() -> int:
        calls.append(None)
        return 1

    await value()
    async with pool.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'new' WHERE id = 1")
        await plain.invalidate(tags=["t"])
    assert not strict_of(plain).expected
    assert [await value(), await value()] == [1, 1]
    assert len(calls) == 2
    await plain.aclose()
