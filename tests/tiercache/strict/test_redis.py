"""Strict keys in Redis, transactions in PostgreSQL: each line of the protocol as a schedule."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from poolkit import Pool
from tests.servers.redis import RedisServer
from tests.tiercache.strict.table import (
    Gate,
    Reader,
    before_commit,
    committing,
    dies_at_commit,
    ready,
    rename,
    strict_of,
    upkeep,
)
from tiercache import Cache, MemoryTier, RedisTier
from tiercache.errors import TierError

MARKS = "{tc1:default}:h"
SLOT = "tc1:default:k:name:1"


class Rollback(Exception):
    """Ends a transaction without a commit."""


Make = Callable[..., Cache]


@pytest_asyncio.fixture
async def make(make_cache: Callable[..., Cache], redis_url: str, pool: Pool) -> AsyncIterator[Make]:
    """Make caches of several processes, as it were, all of which know the pool."""
    made: list[Cache] = []

    def cache(**options: Any) -> Cache:
        tiers = (MemoryTier(), RedisTier(redis_url, timeout=5))
        made.append(make_cache(*tiers, outbox=pool, **options))
        return made[-1]

    yield cache
    for each in made:
        await each.aclose()


@pytest_asyncio.fixture
async def reader(make: Make, pool: Pool) -> Reader:
    """Somebody who reads strictly, when nobody is in his way, and hears of nothing."""
    reader = Reader(make(bus=None), pool)
    await reader.cache.open()
    await ready(reader.cache)
    return reader


@pytest.fixture
def writer(make: Make) -> Cache:
    """Somebody else, who has no strict function of his own."""
    return make()


# --- reading


async def test_a_hit_is_of_redis_and_nothing_is_kept_in_memory(reader: Reader) -> None:
    """A strict value is shared by way of Redis; L1 holds none."""
    assert [await reader.name(1) for _ in range(3)] == ["old"] * 3
    assert reader.loads == 1
    assert dict(reader.name.stats().hits) == {"l1": 0, "l2": 2, "l3": 0}
    assert reader.cache._parts.local.lookup("name:1", None) is None


async def test_processes_share(reader: Reader, make: Make, pool: Pool) -> None:
    """What one process has loaded another one reads."""
    other = Reader(make(), pool)
    assert await reader.name(1) == await other.name(1) == "old"
    assert (reader.loads, other.loads) == (1, 0)


async def test_callers_of_one_moment_share_a_load(reader: Reader) -> None:
    """A fill that is accepted serves all who had joined before it was sent."""
    assert await asyncio.gather(*(reader.name(1) for _ in range(20))) == ["old"] * 20
    assert reader.loads == 1
    assert reader.name.stats().coalesced > 0


async def test_a_failing_load_fails_for_all(reader: Reader) -> None:
    """The loader's own error reaches all who joined, from one call."""
    down = ValueError("down")
    calls = 0

    @reader.cache.cached(ttl=60, key="fails", strict=True)
    async def fails() -> int:
        nonlocal calls
        calls += 1
        while fails.stats().coalesced < 2:
            await asyncio.sleep(0.001)
        raise down

    results = await asyncio.gather(*(fails() for _ in range(3)), return_exceptions=True)
    assert results == [down] * 3
    assert calls == 1


# --- marks


async def test_a_mark_is_there_before_the_commit(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """While a transaction is about to commit, readers go round: no lease, no fill, no join."""
    assert await reader.name(1) == "old"
    before = redis_server.cli("BITCOUNT", SLOT)
    async with committing(writer, pool, "new"):
        assert not await reader.is_cached()
        reader.hold = gate = Gate()
        held = reader.start()
        await gate.reached.wait()
        assert await reader.name(1) == "old"
        gate.opened.set()
        assert await held == "old"
        assert reader.loads == 4
        assert redis_server.cli("BITCOUNT", SLOT) == before
    assert await reader.name(1) == "new"
    assert await reader.is_cached()


async def test_marks_have_no_end_of_their_own(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """However long a commit takes, the mark is there: it has no ttl."""
    await reader.name(1)
    async with committing(writer, pool, "new"):
        assert redis_server.cli("HEXISTS", MARKS, "mguser:1")
        assert redis_server.cli("PTTL", MARKS) == -1
    assert sorted(redis_server.cli("HKEYS", MARKS)) == ["epoch", "ready", "run"]


async def test_a_commit_whose_process_dies_is_never_missed(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """After an acknowledged commit nobody reads what was before, whoever died."""
    assert await reader.name(1) == "old"
    dies_at_commit(writer)
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    assert [await reader.name(1) for _ in range(2)] == ["new"] * 2
    assert not await reader.is_cached()
    await reader.look()
    assert await reader.name(1) == "new"
    assert await reader.is_cached()


async def test_the_mark_of_a_transaction_that_was_aborted(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """A dead mark of a rollback is taken away, and what it marked is still cached."""
    await reader.name(1)
    dies_at_commit(writer)
    async with committing(writer, pool, "new", error=Rollback()):
        pass
    assert not await reader.is_cached()
    await reader.look()
    before = reader.loads
    assert await reader.name(1) == "old"
    assert reader.loads == before


async def test_the_mark_of_an_open_transaction_is_left(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """A mark is not dead because it is old."""
    await reader.name(1)
    async with committing(writer, pool, "new"):
        await reader.look()
        assert await reader.name(1) == "old"
        assert not await reader.is_cached()
    assert await reader.name(1) == "new"


async def test_a_rollback_invalidates_nothing(reader: Reader, writer: Cache, pool: Pool) -> None:
    """A mark alone changes nothing: it is taken away with the rollback."""
    await reader.name(1)
    async with committing(writer, pool, "new", error=Rollback()):
        assert not await reader.is_cached()
    assert await reader.is_cached()
    assert reader.loads == 2


async def test_a_savepoint_that_is_rolled_back_marks_nothing(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """Only what is about to be committed is marked."""
    await reader.name(1)
    fields: list[str] = []

    async def note() -> None:
        fields.extend(redis_server.cli("HKEYS", MARKS))

    before_commit(writer, note)
    async with pool.transaction() as tx:
        with pytest.raises(Rollback):
            async with tx.transaction():
                await writer.invalidate("dropped")
                raise Rollback
        await writer.invalidate("kept")
    assert "mkkept" in fields
    assert "mkdropped" not in fields


async def test_two_writers(reader: Reader, make: Make, pool: Pool) -> None:
    """A key stays marked until the last of those who mark it is over."""
    one, other = make(), make()
    await reader.name(1)
    async with committing(one, pool, "first"):
        async with pool.transaction() as tx:
            await other.invalidate("name:1", tags=["user:2"])
            await tx.execute("UPDATE users SET name = 'second' WHERE id = 2")
        assert not await reader.is_cached()
    assert await reader.name(1) == "first"
    assert await reader.is_cached()


async def test_a_mark_that_cannot_be_written_fails_the_transaction(
    make_cache: Callable[..., Cache], private_redis: RedisServer, pool: Pool
) -> None:
    """Without Redis nothing is committed that strict readers depend on; and they get the truth."""
    cache = make_cache(RedisTier(private_redis.url, timeout=0.2), outbox=pool)
    reader = Reader(cache, pool)
    assert await reader.name(1) == "old"
    private_redis.kill()
    with pytest.raises(TierError, match="rolled back"):
        async with pool.transaction() as tx:
            await rename(cache, tx, "new")
    assert await pool.fetchval("SELECT name FROM users WHERE id = 1") == "old"
    await pool.execute("UPDATE users SET name = 'new' WHERE id = 1")
    assert await reader.name(1) == "new"
    with pytest.raises(TierError, match="not every tier"):
        await cache.invalidate(tags=["user:1"])
    with pytest.raises(TierError, match="not every tier"):
        await reader.name.invalidate(1)
    await cache.aclose()


async def test_without_strict_readers_redis_is_not_needed_to_commit(
    make_cache: Callable[..., Cache], private_redis: RedisServer, pool: Pool
) -> None:
    """A cache that nobody reads strictly does not fail a transaction, and returns False."""
    cache = make_cache(RedisTier(private_redis.url, timeout=0.2), outbox=pool)
    private_redis.kill()
    async with pool.transaction() as tx:
        await rename(cache, tx, "new")
    assert await pool.fetchval("SELECT name FROM users WHERE id = 1") == "new"
    assert await cache.invalidate("k") is False
    await cache.aclose()


async def test_a_transaction_that_is_run_again_leaves_no_mark(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """Each attempt of `Pool.run` takes its own mark away."""
    await reader.name(1)
    attempts = 0

    async def fail_once() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await pool.execute("SELECT 1")
            raise _Serialization

    before_commit(writer, fail_once)
    await pool.run(lambda tx: rename(writer, tx, "new"))
    assert attempts == 2
    assert sorted(redis_server.cli("HKEYS", MARKS)) == ["epoch", "ready", "run"]
    assert await reader.name(1) == "new"


class _Serialization(Exception):
    sqlstate = "40001"


# --- fills and those who joined


async def test_a_fill_is_refused_while_its_key_is_marked(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """A load from before the mark does not fill after it."""
    reader.hold = gate = Gate()
    first = reader.start()
    await gate.reached.wait()
    dies_at_commit(writer)
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    gate.opened.set()
    assert await first == "old"  # it asked before the commit
    assert redis_server.cli("GETRANGE", SLOT, 0, 0) != "V"
    assert not await reader.is_cached()
    assert await reader.name(1) == "new"


async def test_who_joins_after_the_commit_is_not_served_by_a_load_from_before(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """The load goes on with the old value; a caller who comes after the commit gets the new one."""
    reader.hold = gate = Gate()
    first = reader.start()
    await gate.reached.wait()
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    late = [reader.start() for _ in range(3)]
    async with asyncio.timeout(10):
        while reader.name.stats().coalesced < 3:
            await asyncio.sleep(0.001)
    gate.opened.set()
    assert await first == "old"
    assert await asyncio.gather(*late) == ["new"] * 3
    assert await reader.is_cached()


async def test_who_joined_before_a_mark_is_not_served_by_a_refused_fill(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """A refused fill proves nothing to those who joined: they load by themselves."""
    reader.hold = gate = Gate()
    first = reader.start()
    await gate.reached.wait()
    joined = reader.start()
    async with asyncio.timeout(10):
        while not reader.name.stats().coalesced:
            await asyncio.sleep(0.001)
    dies_at_commit(writer)
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    gate.opened.set()
    assert await first == "old"
    assert await joined == "new"


async def test_who_comes_while_the_fill_is_under_way_reads_for_himself(
    reader: Reader, writer: Cache, pool: Pool
) -> None:
    """A fill that was sent before a caller came says nothing to him: a commit may lie between."""
    tier: Any = strict_of(reader.cache).tier
    filled, gate = tier.fill, Gate()

    async def slow_fill(fills: Any) -> Any:
        answer = await filled(fills)
        if not gate.opened.is_set():
            await gate.stop()
        return answer

    tier.fill = slow_fill
    first = reader.start()
    await gate.reached.wait()
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    late = reader.start()
    await asyncio.wait((late,), timeout=0.05)  # it need not end before the fill does
    gate.opened.set()
    assert await first == "old"
    assert await late == "new"


# --- Redis forgets


async def test_redis_is_emptied_between_mark_and_commit(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """Nothing is cached until every transaction is over whose mark may have been lost."""
    await reader.name(1)
    dies_at_commit(writer)
    async with committing(writer, pool, "new"):
        redis_server.cli("FLUSHALL")
        for _ in range(3):
            assert await reader.name(1) == "old"
            assert not await upkeep(reader.cache).establish()
        assert not await reader.is_cached()
    assert await reader.name(1) == "new"
    await ready(reader.cache)
    await reader.name(1)
    assert await reader.name(1) == "new"
    assert await reader.is_cached()


async def test_the_marks_alone_are_evicted(
    reader: Reader, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """Values go with the marks that guarded them: they carry the epoch of those."""
    await reader.name(1)
    dies_at_commit(writer)
    async with committing(writer, pool, "new"):
        redis_server.cli("DEL", MARKS)
        assert not await reader.is_cached()
    await ready(reader.cache)
    assert await reader.name(1) == "new"


async def test_redis_comes_back_from_a_snapshot_without_the_mark(
    make_cache: Callable[..., Cache], private_redis: RedisServer, pool: Pool
) -> None:
    """Marks and values of another life of the server are none."""
    caches = [make_cache(RedisTier(private_redis.url, timeout=5), outbox=pool) for _ in range(2)]
    reader, writer = Reader(caches[0], pool), caches[1]
    await ready(reader.cache)
    assert await reader.name(1) == "old"
    private_redis.cli("SAVE")
    dies_at_commit(writer)
    async with committing(writer, pool, "new"):
        private_redis.kill()
        private_redis.start()
        assert private_redis.cli("HEXISTS", MARKS, "ready")
        assert not private_redis.cli("HEXISTS", MARKS, "mguser:1")
        assert not await reader.is_cached()
    await ready(reader.cache)
    assert await reader.name(1) == "new"
    for cache in caches:
        await cache.aclose()


# --- who knows of strict readers


async def test_a_writer_learns_of_strict_readers(reader: Reader, writer: Cache, pool: Pool) -> None:
    """A process without a strict function asks Redis before it commits."""
    await reader.name(1)
    assert not strict_of(writer).expected
    async with committing(writer, pool, "new"):
        assert strict_of(writer).expected
        assert not await reader.is_cached()


async def test_the_first_strict_reader_waits_for_those_who_know_of_none(
    make: Make, writer: Cache, pool: Pool, redis_server: RedisServer
) -> None:
    """Who was told that nobody reads strictly relies on it for a moment; nothing is cached then."""
    reader = Reader(make(), pool)
    async with pool.transaction() as tx:
        await rename(writer, tx, "new")
    assert not strict_of(writer).expected
    assert await reader.name(1) == "new"
    assert not await reader.is_cached()
    redis_server.cli("DEL", "{tc1:default}:r")
    await ready(reader.cache)
    await reader.name(1)
    assert await reader.is_cached()
