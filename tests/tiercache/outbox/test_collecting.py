"""Invalidations that ride in a transaction, on real ones of SQLite."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool, Transaction
from tiercache import Cache, MemoryTier, RedisTier


class Rollback(Exception):
    """Leave a transaction without committing it."""


class Users:
    """A table of names, and a cached function over it."""

    def __init__(self, pool: Pool, cache: Cache) -> None:
        self.pool = pool
        self.cache = cache
        self.calls: list[int] = []

        @cache.cached(ttl=60, key="name:{id}", tags=["user:{id}"])
        async def name(id: int) -> str:
            self.calls.append(id)
            text: str = await pool.fetchval("SELECT name FROM users WHERE id = $1", id)
            return text

        self.name = name

    async def rename(self, tx: Transaction, id: int, name: str) -> None:
        """Write, and say so."""
        await tx.execute("UPDATE users SET name = $1 WHERE id = $2", name, id)
        assert await self.cache.invalidate(tags=[f"user:{id}"]) is True


@pytest.fixture
async def pool(sqlite_path: Path) -> AsyncIterator[Pool]:
    """A pool on a file."""
    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        await pool.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        await pool.executemany(
            "INSERT INTO users VALUES ($1, $2)", [(1, "old"), (2, "old"), (3, "old")]
        )
        yield pool


@pytest.fixture
async def users(pool: Pool, cache: Cache) -> Users:
    """The function with its first three values cached."""
    users = Users(pool, cache)
    assert [await users.name(id) for id in (1, 2, 3)] == ["old"] * 3
    return users


async def test_commit(users: Users, pool: Pool) -> None:
    """What a transaction invalidates takes effect when it commits, before its block returns."""
    async with pool.transaction() as tx:
        await users.rename(tx, 1, "new")
        assert users.cache.stats().invalidations == 0
    assert users.cache.stats().invalidations == 1
    assert await users.name(1) == "new"
    assert await users.name(2) == "old"
    assert users.calls == [1, 2, 3, 1]


async def test_rollback(users: Users, pool: Pool) -> None:
    """A rollback invalidates nothing, and the hot path answers again."""
    with pytest.raises(Rollback):
        async with pool.transaction() as tx:
            await users.rename(tx, 1, "new")
            raise Rollback
    assert await users.name(1) == "old"
    assert users.calls == [1, 2, 3]
    assert users.cache.stats().invalidations == 0
    assert users.cache._parts.local.gate.until > 0


async def test_savepoint(users: Users, pool: Pool) -> None:
    """A savepoint that is rolled back drops its part; one that is released keeps it."""
    async with pool.transaction() as tx:
        with pytest.raises(Rollback):
            async with tx.transaction() as inner:
                await users.rename(inner, 1, "dropped")
                raise Rollback
        async with tx.transaction() as inner:
            await users.rename(inner, 2, "kept")
    assert [await users.name(id) for id in (1, 2, 3)] == ["old", "kept", "old"]
    assert users.calls == [1, 2, 3, 2]


async def test_a_transaction_that_retries(users: Users, pool: Pool) -> None:
    """What an attempt that is run again has invalidated leaves no trace."""
    attempts: list[object] = []

    async def work(tx: Transaction) -> None:
        attempts.append(1)
        await users.rename(tx, 1, "new")
        if len(attempts) == 1:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy

    await pool.run(work)
    assert len(attempts) == 2
    assert users.cache.stats().invalidations == 1
    assert users.cache._parts.local.gate.until > 0
    assert await users.name(1) == "new"


async def test_reads_inside(users: Users, pool: Pool) -> None:
    """Inside the transaction what it invalidated is read around the cache, the rest is served."""
    async with pool.transaction() as tx:
        await users.rename(tx, 1, "new")
        await users.name(1)
        await users.name(1)
        await users.name(2)
        assert not await users.name.peek(1)
        assert await users.name.peek(2) == "old"
    assert users.calls == [1, 2, 3, 1, 1]
    assert await users.name(1) == "new"


@pytest.mark.parametrize("way", ["key", "tag", "clear", "emit", "set", "function"])
async def test_the_hot_path_cannot_serve_it(users: Users, pool: Pool, way: str) -> None:
    """However the transaction invalidates an entry, the hot path does not serve it any more."""
    cache = users.cache
    cache.on("renamed", tags=["user:{id}"])
    await users.name(1)
    async with pool.transaction():
        if way == "key":
            await cache.invalidate("name:1")
        elif way == "tag":
            await cache.invalidate(tags=["user:1"])
        elif way == "clear":
            await cache.clear()
        elif way == "emit":
            await cache.emit("renamed", id=1)
        elif way == "set":
            await cache.set("name:1", "set")
        else:
            await users.name.invalidate(1)
        await users.name(1)
        assert users.calls == [1, 2, 3, 1]
        assert await cache.get("name:1") is None
        elsewhere = asyncio.create_task(users.name(1))  # type: ignore[arg-type]
        assert await elsewhere == "old"
        assert users.calls == [1, 2, 3, 1]


@pytest.mark.parametrize("how", ["call", "refresh", "get_or_load", "many"])
async def test_a_load_inside_is_private(users: Users, pool: Pool, how: str) -> None:
    """A load of a transaction runs in its task, is joined by nobody and fills nothing."""
    cache = users.cache
    tasks = []
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def value(key: int) -> str:
        if tasks:
            return "committed"
        tasks.append(asyncio.current_task())
        inside.set()
        await go_on.wait()
        return "private"

    @cache.cached(ttl=60, key="x:{id}")
    async def one(id: int) -> str:
        return await value(id)

    @cache.cached_many(ttl=60, key="x:{id}")
    async def many(ids: list[int]) -> dict[int, str]:
        return {id: await value(id) for id in ids}

    async def read() -> Any:
        if how == "call":
            return await one(7)
        if how == "refresh":
            return await one.refresh(7)
        if how == "get_or_load":
            return await cache.get_or_load("x:7", lambda: value(7))
        return (await many([7]))[7]

    async def within() -> Any:
        async with pool.transaction(readonly=True):
            return await read()

    private = asyncio.create_task(within())
    await inside.wait()
    assert await one(7) == "committed"
    go_on.set()
    assert await private == "private"
    assert tasks == [private]
    assert await one(7) == "committed"


async def test_a_failing_private_load(users: Users, pool: Pool) -> None:
    """A loader's error is counted and raised as it is."""

    @users.cache.cached(ttl=60)
    async def load() -> int:
        raise ValueError("down")

    async with pool.transaction(readonly=True):
        with pytest.raises(ValueError, match="down"):
            await load()
    assert load.stats().load_errors == 1


async def test_figures_of_reads_inside(users: Users, pool: Pool) -> None:
    """Reads inside a transaction are counted like others."""
    cache = users.cache
    async with pool.transaction():
        await cache.invalidate("name:1")
        await users.name(1)
        await users.name(2)
    stats = users.name.stats()
    assert (stats.hits["l1"], stats.misses, stats.loads) == (1, 4, 4)


async def test_set_waits_for_the_commit(users: Users, pool: Pool) -> None:
    """``set`` takes effect with the commit, and not at all without one."""
    cache = users.cache
    await cache.set("k", "old")
    async with pool.transaction():
        await cache.set("k", "new", ttl=60)
        assert await cache.get("k") is None
        assert await asyncio.create_task(cache.get("k")) == "old"
    assert await cache.get("k") == "new"
    with pytest.raises(Rollback):
        async with pool.transaction():
            await cache.set("k", "newer")
            raise Rollback
    assert await cache.get("k") == "new"


async def test_clear_and_emit_wait_for_the_commit(users: Users, pool: Pool) -> None:
    """So do ``clear`` and ``emit``, in their order."""
    cache, heard = users.cache, []
    cache.on("renamed", keys=["k"])
    cache.subscribe("renamed", lambda id: heard.append(id))
    await cache.set("k", "old")
    async with pool.transaction():
        await cache.emit("renamed", id=1)
        assert heard == []
    assert heard == [1]
    assert await cache.get("k") is None
    with pytest.raises(Rollback):
        async with pool.transaction():
            await cache.emit("renamed", id=2)
            await cache.clear()
            raise Rollback
    assert heard == [1]
    assert await users.name(1) == "old"
    async with pool.transaction():
        await cache.clear()
        await cache.set("k", "after")
    assert await cache.get("k") is None  # what a transaction invalidates it cannot set as well
    await users.name(1)
    assert users.calls == [1, 2, 3, 1]


async def test_a_writer_that_invalidates(users: Users, pool: Pool) -> None:
    """A function decorated with ``invalidates`` waits for the commit of the open transaction."""
    cache = users.cache

    @cache.invalidates(tags=["user:{id}"])
    async def rename(tx: Transaction, id: int, name: str) -> None:
        await tx.execute("UPDATE users SET name = $1 WHERE id = $2", name, id)

    async with pool.transaction() as tx:
        await rename(tx, 1, "new")
        assert await asyncio.create_task(cache.get("name:1")) == "old"
    assert await users.name(1) == "new"


async def test_sync_faces_inside_an_async_transaction(users: Users, pool: Pool) -> None:
    """A blocking call in the transaction's task belongs to the transaction, too."""
    cache = users.cache
    calls = []

    @cache.cached(ttl=60, key="s:{x}")
    def load(x: int) -> int:
        calls.append(x)
        return len(calls)

    assert load(1) == load(1) == 1
    async with pool.transaction():
        assert load(1) == 1
        assert load.invalidate(1)
        assert load(1) == 2
        assert load(1) == 3
        assert load(2) == 4
        cache.sync.set("k", 1)
        assert cache.sync.get("k") is None
    assert load(1) == 5
    assert load(2) == 6
    assert cache.sync.get("k") == 1


async def test_child_tasks_and_threads_are_outside(users: Users, pool: Pool) -> None:
    """Child tasks and threads of a transaction's task use the cache as if there were none."""
    cache = users.cache

    @cache.cached(ttl=60)
    def load() -> int:
        return 1

    async with pool.transaction():
        await cache.invalidate("name:1")
        assert await asyncio.create_task(cache.get("name:1")) == "old"
        assert await asyncio.to_thread(cache.sync.get, "name:1") == "old"
        assert await asyncio.to_thread(load) == 1
        assert await asyncio.to_thread(cache.sync.invalidate, "name:2") is True
        assert await asyncio.create_task(cache.get("name:2")) is None
    assert load.stats().loads == 1
    assert load() == 1
    assert load.stats().loads == 1


async def test_one_pool_inside_another(users: Users, pool: Pool, tmp_path: Path) -> None:
    """What an outer transaction has invalidated stays hidden in one of another pool inside it."""
    async with Pool(f"sqlite:///{tmp_path}/other.db") as other:
        async with pool.transaction() as tx:
            await users.rename(tx, 1, "new")
            async with other.transaction():
                await users.name(1)
                assert users.calls == [1, 2, 3, 1]
                await users.cache.invalidate("name:2")
            await users.name(1)
            assert users.calls == [1, 2, 3, 1, 1]
    assert await users.name(1) == "new"
    assert users.cache._parts.local.gate.until > 0


async def test_a_caller_that_is_cancelled_at_the_commit(users: Users, pool: Pool) -> None:
    """The invalidations of a commit are carried out even if their task is cancelled then."""
    for steps in range(12):
        await users.cache.set("k", steps)

        async def work() -> bool:
            async with pool.transaction() as tx:
                await tx.execute("UPDATE users SET name = 'x' WHERE id = 3")
                await users.cache.invalidate("k")
                ready.set()
            return True

        ready = asyncio.Event()
        task = asyncio.create_task(work())
        await ready.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        name = await pool.fetchval("SELECT name FROM users WHERE id = 3")
        task.cancel()
        await asyncio.wait([task])
        committed = await pool.fetchval("SELECT name FROM users WHERE id = 3") == "x"
        assert name in ("old", "x")
        async with asyncio.timeout(10):
            while committed and await users.cache.get("k") is not None:
                await asyncio.sleep(0)
        await pool.execute("UPDATE users SET name = 'old' WHERE id = 3")


async def test_shared_tiers(pool: Pool, make_cache: Callable[..., Cache], redis_url: str) -> None:
    """With Redis below, the commit empties it as well, and a rollback leaves it alone."""
    cache, other = (make_cache(MemoryTier(), RedisTier(redis_url)) for _ in range(2))
    users = Users(pool, cache)
    assert await users.name(1) == "old"
    with pytest.raises(Rollback):
        async with pool.transaction() as tx:
            await users.rename(tx, 1, "never")
            raise Rollback
    assert await other.get("name:1", type=str) == "old"
    async with pool.transaction() as tx:
        await users.rename(tx, 1, "new")
        await users.name(1)
    assert await users.name(1) == "new"
    async with asyncio.timeout(10):
        while await other.get("name:1", type=str) == "old":
            await asyncio.sleep(0.001)
    await cache.aclose()
    await other.aclose()


async def test_a_refresh_inside_a_transaction(cache: Cache, sqlite_path: Path) -> None:
    """It stores nothing, and what was stored goes with the commit."""
    calls: list[int] = []

    @cache.cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        return len(calls)

    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        await load()
        async with pool.transaction():
            assert await load.refresh() == 2
        assert await load() == 3
