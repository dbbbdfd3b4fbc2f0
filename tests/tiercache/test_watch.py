"""Row changes by anybody, from the trigger to the L1 of every process."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from poolkit import Pool, TransactionError
from tests.servers.postgres import PostgresServer
from tests.waiting import until
from tiercache import Cache, CacheClosed, DatabaseTier, KeyTemplateError, MemoryTier, RedisTier
from tiercache import watch as watching
from tiercache.errors import PolicyError, TierError

MakeCache = Callable[..., Cache]

USERS = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, tenant TEXT)"
TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'tiercache_watch%'"


@pytest.fixture
def make_cache(make_cache_here: MakeCache) -> MakeCache:
    """Make caches that are closed on the loop of the test."""
    return make_cache_here


@pytest.fixture(params=["postgres", "sqlite"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    """A pool on a database with a user."""
    if request.param == "postgres":
        dsn = request.getfixturevalue("postgres_dsn")
    else:
        dsn = f"sqlite:///{request.getfixturevalue('sqlite_path')}"
    async with Pool(dsn, max_size=3) as pool:
        await pool.execute(USERS)
        await pool.execute("INSERT INTO users VALUES (1, 'old', 'acme')")
        yield pool


@pytest.fixture
async def postgres(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on PostgreSQL with a user."""
    async with Pool(postgres_dsn, max_size=6) as pool:
        await pool.execute(USERS)
        await pool.execute("INSERT INTO users VALUES (1, 'old', 'acme')")
        yield pool


class Reader:
    """A cached function of one process, which is a cache with an L1 of its own here."""

    def __init__(self, cache: Cache, pool: Pool) -> None:
        self.cache = cache

        @cache.cached(ttl="1h", key="name:{id}", tags=["user:{id}"])
        async def name(id: int) -> str:
            return str(await pool.fetchval("SELECT name FROM users WHERE id = $1", id))

        self.name = name

    async def reads(self, id: int, text: str) -> None:
        """Wait until that is what is read."""

        async def read() -> bool:
            return bool(await self.name(id) == text)

        await until(read)


# --- to the end ------------------------------------------------------------------------------


@pytest.mark.parametrize("bus", ["redis", "postgres", "l3"])
async def test_an_update_in_psql_reaches_every_process(
    bus: str,
    postgres: Pool,
    postgres_dsn: str,
    postgres_server: PostgresServer,
    make_cache: MakeCache,
    redis_url: str,
) -> None:
    """What is typed into psql is read by every process, whatever carries the events."""

    def made() -> Cache:
        if bus == "redis":
            return make_cache(MemoryTier(), RedisTier(redis_url))
        if bus == "postgres":
            return make_cache(MemoryTier(), bus=postgres)
        return make_cache(MemoryTier(), DatabaseTier(postgres))

    readers = [Reader(made(), postgres) for _ in range(3)]
    for reader in readers:
        await reader.cache.open()
    await readers[0].cache.watch(postgres, "users", tags=["user:{id}"])
    for reader in readers:
        assert await reader.name(1) == "old"
    postgres_server.psql("UPDATE users SET name = 'new' WHERE id = 1", postgres_dsn)
    for reader in readers:
        await reader.reads(1, "new")
    postgres_server.psql("TRUNCATE users", postgres_dsn)
    for reader in readers:
        await reader.reads(1, "None")
    await until(lambda: _is_empty(postgres))  # a row stays until it was carried out, no longer


async def _is_empty(pool: Pool) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM tiercache_outbox") == 0)


async def test_an_update_by_another_program_reaches_every_process(
    sqlite_path: Path, make_cache: MakeCache
) -> None:
    """On SQLite, with no server at all."""
    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        await pool.execute(USERS)
        await pool.execute("INSERT INTO users VALUES (1, 'old', 'acme')")
        readers = [Reader(make_cache(MemoryTier(), DatabaseTier(pool)), pool) for _ in range(2)]
        for reader in readers:
            await reader.cache.open()
        await readers[0].cache.watch(pool, "users", tags=["user:{id}"])
        for reader in readers:
            assert await reader.name(1) == "old"
        other = sqlite3.connect(sqlite_path)
        with other:
            other.execute("UPDATE users SET name = 'new' WHERE id = 1")
        other.close()
        for reader in readers:
            await reader.reads(1, "new")


async def test_a_cache_that_opens_anew_goes_on(pool: Pool, make_cache: MakeCache) -> None:
    """After closing and opening again rows are relayed as before."""
    cache = make_cache(MemoryTier())
    await cache.watch(pool, "users", keys=["name:{id}"])
    await cache.aclose()
    with pytest.raises(CacheClosed):
        await cache.watch(pool, "users", keys=["name:{id}"])
    await cache.open()
    reader = Reader(cache, pool)
    assert await reader.name(1) == "old"
    await pool.execute("UPDATE users SET name = 'new'")
    await reader.reads(1, "new")


# --- putting in place ------------------------------------------------------------------------


async def test_again_waits_for_nobody(postgres: Pool, make_cache: MakeCache) -> None:
    """What is in place is left alone, even while somebody has the whole table to himself."""
    cache = make_cache()
    await cache.watch(postgres, "users", tags=["user:{id}"])
    async with postgres.acquire() as other, other.transaction() as tx:
        await tx.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10):
            await asyncio.create_task(make_cache().watch(postgres, "users", tags=["user:{id}"]))
    assert await postgres.fetchval(TRIGGERS) == 4


async def test_callers_at_the_same_time(pool: Pool, make_cache: MakeCache) -> None:
    """Processes that start together all succeed, also those that ask for something else."""
    caches = [make_cache() for _ in range(6)]
    templates = [["user:{id}"], ["user:{id}", "tenant:{tenant}"]]
    async with asyncio.TaskGroup() as tasks:
        for n, cache in enumerate(caches):
            tasks.create_task(cache.watch(pool, "users", tags=templates[n % 2]))
    await caches[0].watch(pool, "users", tags=templates[0])
    if pool.driver.system == "postgresql":
        assert await pool.fetchval(TRIGGERS) == 4


async def test_a_lock_is_asked_for_again(
    postgres: Pool, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes the table is waited for, in short turns."""
    asked = asyncio.Event()
    patiently = watching._stood_in_the_way

    def note(error: Exception) -> bool:
        asked.set()
        return patiently(error)

    monkeypatch.setattr(watching, "_stood_in_the_way", note)
    async with postgres.acquire() as other:
        async with other.transaction() as tx:
            await tx.execute("UPDATE users SET name = 'b'")
            task = asyncio.create_task(make_cache().watch(postgres, "users", tags=["user:{id}"]))
            async with asyncio.timeout(10):
                await asked.wait()
            assert not task.done()
    async with asyncio.timeout(10):
        await task
    assert await postgres.fetchval(TRIGGERS) == 4


async def test_a_lock_that_is_never_given(
    postgres: Pool, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end the error says who may be in the way."""
    monkeypatch.setattr(watching, "ATTEMPTS", 1)
    async with postgres.acquire() as other, other.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'b'")
        with pytest.raises(TierError, match="long transaction") as caught:
            await asyncio.create_task(make_cache().watch(postgres, "users", tags=["user:{id}"]))
    assert caught.value.operation == "watch"


async def test_other_templates_warn(
    pool: Pool, make_cache: MakeCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A second call with other templates replaces the first, and that is told."""
    cache = make_cache()
    with caplog.at_level(logging.WARNING, "tiercache"):
        await cache.watch(pool, "users", tags=["user:{id}"])
        await cache.watch(pool, "users", tags=["user:{id}"])
        assert "other templates" not in caplog.text
        await cache.watch(pool, "users", keys=["name:{id}"])
    assert "other templates" in caplog.text


async def test_without_a_bus_it_warns(
    pool: Pool, make_cache: MakeCache, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache that nobody tells anything hears of a row only if it is first, and says so, once."""
    with caplog.at_level(logging.WARNING, "tiercache"):
        quiet = make_cache(MemoryTier(), bus=pool)
        await quiet.watch(pool, "users", tags=["user:{id}"])
        assert "has no bus" not in caplog.text
        cache = make_cache(MemoryTier())
        for _ in range(2):
            await cache.watch(pool, "users", tags=["user:{id}"])
    assert caplog.text.count("has no bus") == 1


async def test_unwatch(pool: Pool, make_cache: MakeCache) -> None:
    """After unwatching, a change of a row writes nothing; again is nothing."""
    cache = make_cache(MemoryTier())
    await cache.watch(pool, "users", tags=["user:{id}"])
    for _ in range(2):
        await cache.unwatch(pool, "users")
    await cache.aclose()
    await pool.execute("UPDATE users SET name = 'b'")
    assert await _is_empty(pool)


async def test_the_blocking_face(pool: Pool, make_cache: MakeCache) -> None:
    """A thread does the same with the pool of a loop."""
    cache = make_cache(MemoryTier())
    reader = Reader(cache, pool)
    await asyncio.to_thread(cache.sync.watch, pool, "users", tags=["user:{id}"])
    assert await reader.name(1) == "old"
    await pool.execute("UPDATE users SET name = 'new'")
    await reader.reads(1, "new")
    sql = await asyncio.to_thread(cache.sync.watch_sql, pool, "users", tags=["user:{id}"])
    assert sql == await cache.watch_sql(pool, "users", tags=["user:{id}"])
    await asyncio.to_thread(cache.sync.unwatch, pool, "users")
    await cache.aclose()
    await pool.execute("UPDATE users SET name = 'newer'")
    assert await _is_empty(pool)


# --- refused ---------------------------------------------------------------------------------


async def test_inside_a_transaction(pool: Pool, make_cache: MakeCache) -> None:
    """It would wait for the transaction that it is called in: the error says where to call it."""
    cache = make_cache()
    async with pool.transaction():
        with pytest.raises(TransactionError, match="at start-up"):
            await cache.watch(pool, "users", tags=["user:{id}"])
        with pytest.raises(TransactionError, match="at start-up"):
            cache.sync.watch(pool, "users", tags=["user:{id}"])
        with pytest.raises(TransactionError, match="at start-up"):
            await cache.unwatch(pool, "users")


async def test_what_cannot_be_meant(pool: Pool, make_cache: MakeCache) -> None:
    """Errors name what was given and what would do."""
    cache = make_cache()
    with pytest.raises(PolicyError, match="accepted: a poolkit Pool"):
        await cache.watch("postgresql://", "users", tags=["a"])  # type: ignore[arg-type]
    with pytest.raises(KeyTemplateError, match="give a list"):
        await cache.watch(pool, "users", tags="user:{id}")
    with pytest.raises(KeyTemplateError, match="names nothing"):
        await cache.watch(pool, "users")
    with pytest.raises(KeyTemplateError, match="the names are id, name, tenant"):
        await cache.watch(pool, "users", tags=["user:{uid}"])
    with pytest.raises(PolicyError, match="no such table"):
        await cache.watch(pool, "user", tags=["user:{id}"])
    async with Pool("sqlite://") as memory:
        with pytest.raises(PolicyError, match="in memory"):
            await cache.watch(memory, "users", tags=["a"])


async def test_a_role_without_the_rights(
    postgres: Pool, postgres_dsn: str, make_cache: MakeCache
) -> None:
    """The error says which rights it takes, and that somebody else can do it; then it goes."""
    role = f"app_{uuid.uuid4().hex[:12]}"
    cache = make_cache(MemoryTier())
    await postgres.execute(f"CREATE ROLE {role} LOGIN")
    # What the relay needs; it is made by whoever runs watch_sql().
    await cache.watch(postgres, "users", tags=["other"])
    await cache.unwatch(postgres, "users")
    await cache.aclose()
    await postgres.execute(f"GRANT SELECT, UPDATE, DELETE ON tiercache_outbox TO {role}")
    await postgres.execute(f"GRANT SELECT, UPDATE ON users TO {role}")
    host = postgres_dsn.replace("postgres@", f"{role}@")
    try:
        async with Pool(host) as pool:
            app = make_cache(MemoryTier())
            with pytest.raises(TierError, match=r"GRANT TRIGGER.*watch_sql\(\)"):
                await app.watch(pool, "users", tags=["user:{id}"])
            await postgres.execute(await app.watch_sql(pool, "users", tags=["user:{id}"]))
            await app.watch(pool, "users", tags=["user:{id}"])
            reader = Reader(app, pool)
            assert await reader.name(1) == "old"
            await pool.execute("UPDATE users SET name = 'new'")
            await reader.reads(1, "new")
            await app.aclose()
    finally:
        await postgres.execute(f"DROP OWNED BY {role}")
        await postgres.execute(f"DROP ROLE {role}")
