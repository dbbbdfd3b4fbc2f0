"""What has committed is carried out, whatever happens to the process that committed it."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from poolkit import CommitUnknown, Pool
from poolkit.testing import FaultProxy
from tests.servers.redis import RedisServer
from tests.waiting import until
from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier
from tiercache.callers import Caller
from tiercache.invalidation import Change
from tiercache.outbox import Deed, OutboxTable, Receipt, Relay


@pytest.fixture
def make_cache(make_cache_here: Callable[..., Cache]) -> Callable[..., Cache]:
    """Make caches that are closed on the loop of the test."""
    return make_cache_here


@pytest.fixture(params=["postgresql", "sqlite"])
def dsn(request: pytest.FixtureRequest) -> str:
    """A database of each kind."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_dsn")
        return url
    return f"sqlite:///{request.getfixturevalue('sqlite_path')}"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    """A pool with a table of users in its database."""
    async with Pool(dsn) as pool:
        await pool.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        await pool.execute("INSERT INTO users VALUES (1, 'old')")
        yield pool


async def rows(pool: Pool) -> list[str]:
    """Return what lies in the outbox."""
    found = await pool.fetch("SELECT body FROM tiercache_outbox ORDER BY id")
    return [row[0] for row in found]


def crash(dsn: str, redis_url: str, when: str) -> None:
    """Run a process that commits (or is about to) and is killed."""
    program = str(Path(__file__).with_name("crash.py"))
    done = subprocess.run([sys.executable, program, dsn, redis_url, when], timeout=30, check=False)
    assert done.returncode == -9


async def test_killed_between_commit_and_invalidation(
    pool: Pool, dsn: str, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """Another process invalidates, and hears the application event."""
    heard: list[int] = []
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    cache.subscribe("renamed", lambda id: heard.append(id))

    @cache.cached(ttl=60, key="name:{id}", tags=["user:{id}"])
    async def name(id: int) -> str:
        text: str = await pool.fetchval("SELECT name FROM users WHERE id = $1", id)
        return text

    assert await name(1) == "old"
    await asyncio.to_thread(crash, dsn, redis_url, "after")
    await until(lambda: heard)
    assert await name(1) == "new"
    await until(lambda: _empty(pool))


async def _empty(pool: Pool) -> bool:
    return not await rows(pool)


async def test_killed_before_the_commit(
    pool: Pool, dsn: str, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """What did not commit was never written."""
    await asyncio.to_thread(crash, dsn, redis_url, "before")
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    async with cache:
        await cache._parts.relay._relay(cache._life.settings.outboxes[0])
        assert await rows(pool) == []
        assert cache.stats().invalidations == 0


@pytest.fixture
def nobody_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what commits to the relay, and let that stand still."""

    async def nothing(*args: object, **options: object) -> None:
        pass

    monkeypatch.setattr(Relay, "carry", nothing)
    monkeypatch.setattr(Relay, "run", nothing)


class Rollback(Exception):
    """Leave a transaction without committing it."""


@pytest.mark.usefixtures("nobody_carries")
async def test_what_is_written(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """One row for all that is invalidated, one for each event; of what commits, and no more."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)

    @cache.cached(ttl=60, key="plain:{id}")
    def plain(id: int) -> int:
        return id

    @cache.invalidates(tags=["by:{id}"])
    async def write(id: int) -> None:
        pass

    cache.on("renamed", tags=["user:{id}"])
    async with pool.transaction() as tx:
        await cache.invalidate("k", tags=["a"])
        with pytest.raises(Rollback):
            async with tx.transaction():
                await cache.invalidate("dropped")
                await cache.emit("dropped")
                raise Rollback
        async with tx.transaction():
            await cache.set("s", 1)
        plain.invalidate(7)  # a sync handle joins as well
        cache.sync.invalidate("sync")
        await write(3)
        await cache.emit("renamed", id=1)
        tx.before_commit(lambda: cache.sync.invalidate("late"))
    assert await rows(pool) == [
        '{"k":["k","s","plain:7","sync"],"g":["a","by:3"]}',
        '{"g":["user:1"],"n":"renamed","p":{"id":1}}',
        '{"k":["late"]}',
    ]
    with pytest.raises(Rollback):
        async with pool.transaction():
            await cache.invalidate("dropped")
            raise Rollback
    assert len(await rows(pool)) == 3


@pytest.mark.usefixtures("nobody_carries")
async def test_a_transaction_that_invalidates_nothing_pays_nothing(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """It is not even noticed."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    async with cache, pool.transaction() as tx:
        await tx.execute("UPDATE users SET name = 'new'")
        assert tx._hooks.before == []


async def test_redis_is_down_at_the_commit(
    pool: Pool, private_redis: RedisServer, make_cache: Callable[..., Cache]
) -> None:
    """The row stays until Redis is back; nobody is served the old value meanwhile, or after."""
    writer = make_cache(MemoryTier(), RedisTier(private_redis.url), name="app", outbox=pool)
    reader = make_cache(MemoryTier(), RedisTier(private_redis.url), name="app", outbox=pool)

    async def load() -> str:
        text: str = await pool.fetchval("SELECT name FROM users WHERE id = 1")
        return text

    async with writer, reader:
        assert await writer.get_or_load("k", load) == "old"
        private_redis.pause()
        async with pool.transaction() as tx:
            await tx.execute("UPDATE users SET name = 'new'")
            await writer.invalidate("k")
        assert not writer._parts.relay._done  # those are deleted a moment later
        assert await writer.get_or_load("k", load) == "new"
        assert await rows(pool) == ['{"k":["k"]}']
        private_redis.resume()
        await until(lambda: _empty(pool))
        await until(lambda: not writer._parts.invalidation.pending)
        assert await writer.get_or_load("k", load) == "new"
        assert await reader.get_or_load("k", load) == "new"


async def test_what_fails_outside_a_transaction_is_written_down(
    pool: Pool, private_redis: RedisServer, make_cache: Callable[..., Cache]
) -> None:
    """Once for each key, however often it fails; whoever is alive finishes it."""
    first = make_cache(MemoryTier(), RedisTier(private_redis.url), name="app", outbox=pool)
    async with first:
        await first.set("k", "old")
        private_redis.pause()
        assert await first.invalidate("k") is False
        assert await first.invalidate("k") is False
        await until(lambda: _count(pool, 1))
    private_redis.resume()
    second = make_cache(MemoryTier(), RedisTier(private_redis.url), name="app", outbox=pool)
    async with second:
        await until(lambda: _empty(pool))
        assert await second.get("k") is None


async def _count(pool: Pool, count: int) -> bool:
    return len(await rows(pool)) == count


async def test_a_row_that_cannot_be_read(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    """It may have named anything, so everything goes; and so does the row."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    async with cache:
        await cache.set("k", 1)
        await cache._life.settings.outboxes[0].prepare()
        at = "clock_timestamp()" if "postgres" in str(pool.driver.system) else "0"
        await pool.execute(
            f"INSERT INTO tiercache_outbox (namespace, at, body) VALUES ('app', {at}, '[secret')"
        )
        await until(lambda: _empty(pool))
        assert await cache.get("k") is None
    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


async def test_a_trigger_row_is_not_waited_for(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """A row without a source has nobody else to carry it out; the others wait their time."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    table = cache._life.settings.outboxes[0]
    await table.keep("somebody", ['{"k":["theirs"]}'])
    at = "clock_timestamp()" if "postgres" in str(pool.driver.system) else "0"
    await pool.execute(
        f"INSERT INTO tiercache_outbox (namespace, at, body) VALUES ('app', {at}, '{{}}'), "
        f"('other', {at}, '{{}}')"
    )
    taken = await table.take("me", 3600.0, 10)
    assert [row.body for row in taken] == ["{}"]
    assert await table.take("me", 3600.0, 10) == []
    assert {row.body for row in await table.take("you", -1.0, 10)} == {"{}", '{"k":["theirs"]}'}
    await table.aclose()


async def test_two_relays_share_the_work(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """What one has taken the other leaves alone."""
    caches = [make_cache(RedisTier(redis_url), name="app", outbox=pool) for _ in range(2)]
    one, other = (cache._life.settings.outboxes[0] for cache in caches)
    await one.keep("dead", [f'{{"k":["{n}"]}}' for n in range(40)])
    await pool.execute("UPDATE tiercache_outbox SET source = NULL")  # now anybody's
    shares = await asyncio.gather(*(each.take("x", 3600.0, 30) for each in (one, other)))
    ids = [row.id for share in shares for row in share]
    assert len(ids) == len(set(ids)) > 0
    left = await one.take("x", 3600.0, 100)
    assert len(ids) + len(left) == 40
    for each in (one, other):
        await each.aclose()


async def test_a_pool_that_the_cache_does_not_know(
    pool: Pool,
    redis_url: str,
    make_cache: Callable[..., Cache],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The commit still invalidates; one warning says what a crash would cost."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app")
    await cache.set("k", 1)
    for _ in range(2):
        async with pool.transaction():
            await cache.invalidate("k")
        assert await cache.get("k") is None
    assert caplog.text.count("not written into an outbox") == 1


async def test_nobody_else_could_miss_it(
    pool: Pool, make_cache: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    """A cache in memory alone writes nothing, and has nothing to warn of."""
    cache = make_cache(MemoryTier())
    await cache.set("k", 1)
    async with pool.transaction():
        await cache.invalidate("k")
    assert await cache.get("k") is None
    assert caplog.text == ""


async def test_the_tiers_own_database(pool: Pool, make_cache: Callable[..., Cache]) -> None:
    """`DatabaseTier(pool)` brings its outbox along, under its own prefix."""
    cache = make_cache(MemoryTier(), DatabaseTier(pool, prefix="mine"), name="app")
    async with cache:
        await cache.set("k", 1)
        async with pool.transaction():
            await cache.invalidate("k")
        assert await cache.get("k") is None
        assert await pool.fetchval("SELECT count(*) FROM mine_outbox") in (0, 1)


async def test_commits_of_one_moment_are_carried_out_together(
    redis_url: str, make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first goes at once, the others with each other; each waits until it is done."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app")
    async with cache:
        await cache.set_many({f"k{n}": n for n in range(10)})
        before = cache.stats().invalidations
        relay, passes = cache._parts.relay, []
        run = relay._invalidation.run_merged

        async def recorded(change: Change, caller: Caller, number: int) -> bool:
            passes.append(number)
            return await run(change, caller, number)

        monkeypatch.setattr(relay._invalidation, "run_merged", recorded)

        async def carry(number: int) -> None:
            deed = Deed(Change((f"k{number}",), origin="outbox"))
            await relay.carry([deed], None, known=True)
            assert await cache.get(f"k{number}") is None

        await asyncio.gather(*map(carry, range(10)))
        assert passes == [1, 9]
        assert cache.stats().invalidations - before == 10


async def test_one_that_is_refused_keeps_nobody_else_waiting(
    redis_url: str, make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went together and failed with every tier there is done again one by one."""
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app")

    async def refused(change: Change, caller: Caller, number: int) -> bool:
        return "bad" not in change.keys

    async with cache:
        relay = cache._parts.relay
        monkeypatch.setattr(relay._invalidation, "run_merged", refused)
        changes = [Change((key,), origin="outbox") for key in ("a", "bad", "b")]
        assert await relay._pass(changes) == [True, False, True]


async def test_rows_are_deleted_together(
    pool: Pool, redis_url: str, make_cache: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one statement, a while after they were carried out; at the latest when closing."""
    monkeypatch.setattr("tiercache.outbox.relay.DELETE_AFTER", 600.0)
    monkeypatch.setattr("tiercache.outbox.relay.RELAY_AFTER", 600.0)
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=pool)
    deleted: list[int] = []
    delete = OutboxTable.delete

    async def recorded(self: OutboxTable, ids: Sequence[int]) -> None:
        deleted.append(len(ids))
        await delete(self, ids)

    monkeypatch.setattr(OutboxTable, "delete", recorded)
    async with cache:
        for number in range(5):
            async with pool.transaction():
                await cache.invalidate(f"k{number}")
        assert len(await rows(pool)) == 5
    assert deleted == [5]
    assert await rows(pool) == []


# -- a commit of unknown outcome, on PostgreSQL ---------------------------------------------------


@pytest.fixture
async def proxied(postgres_dsn: str) -> AsyncIterator[tuple[Pool, Pool, FaultProxy]]:
    """A pool through a proxy that breaks, and one that does not."""
    parts = urlsplit(postgres_dsn)
    async with FaultProxy(parts.hostname or "", parts.port or 5432) as proxy:
        netloc = parts.netloc.rpartition("@")[0] + f"@127.0.0.1:{proxy.port}"
        async with (
            Pool(postgres_dsn) as direct,
            Pool(parts._replace(netloc=netloc.lstrip("@")).geturl()) as through,
        ):
            await direct.execute("CREATE TABLE users (id int PRIMARY KEY, name text)")
            await direct.execute("INSERT INTO users VALUES (1, 'old')")
            yield direct, through, proxy


async def _commit_unknown(through: Pool, cache: Cache, proxy: FaultProxy) -> None:
    """Invalidate and emit in a transaction whose COMMIT arrives and is not answered."""
    with pytest.raises(CommitUnknown):
        async with through.transaction() as tx:
            await tx.execute("UPDATE users SET name = 'new'")
            await cache.invalidate("k")
            await cache.emit("renamed", id=1)
            proxy.kill_after = b"COMMIT"
            # Also if the server has nothing to answer for a long time.
            asyncio.get_running_loop().call_later(0.3, proxy.cut)
    proxy.heal()


async def _commit_lost(direct: Pool, through: Pool, cache: Cache, proxy: FaultProxy) -> None:
    """Do the same in a transaction whose COMMIT never arrives."""
    with pytest.raises(CommitUnknown):
        async with through.transaction() as tx:
            await tx.execute("UPDATE users SET name = 'new'")
            await cache.invalidate("k")
            await cache.emit("renamed", id=1)
            backend = await tx.fetchval("SELECT pg_backend_pid()")

            async def kill() -> None:
                proxy.black_hole()
                asyncio.get_running_loop().call_later(0.1, proxy.cut)

            tx.before_commit(lambda: tx.before_commit(kill))
    proxy.heal()
    await direct.execute("SELECT pg_terminate_backend($1)", backend)


async def _slow_commits(direct: Pool) -> None:
    """Let whoever changes a user wait for the advisory lock 77 in his COMMIT."""
    await direct.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NULL; END $$"
    )
    await direct.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slowly()"
    )


def _hear(cache: Cache) -> list[int]:
    """Return the ids of the users of whose renaming the cache will have told its handlers."""
    heard: list[int] = []
    cache.subscribe("renamed", lambda id: heard.append(id))
    return heard


async def test_an_unknown_commit_that_took_place(
    proxied: tuple[Pool, Pool, FaultProxy], redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """It invalidates, its rows are found and carried out, and the tiers are used again."""
    direct, through, proxy = proxied
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=through)
    async with cache:
        await cache.set("k", "old")
        await _commit_unknown(through, cache, proxy)
        assert await cache.get("k") is None
        await until(lambda: _empty(direct))
        await until(lambda: not cache._parts.recovery.covers("k", ()))
        assert await direct.fetchval("SELECT name FROM users") == "new"


async def test_an_unknown_commit_that_lands_late(
    proxied: tuple[Pool, Pool, FaultProxy], redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """What is loaded while COMMIT is still under way does not outlive it."""
    direct, through, proxy = proxied
    await _slow_commits(direct)
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=through)
    other = make_cache(MemoryTier(), RedisTier(redis_url), name="app")

    async def load() -> str:
        text: str = await direct.fetchval("SELECT name FROM users")
        return text

    async with cache, other, direct.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock(77)")
        await cache.set("k", "old")
        await _commit_unknown(through, cache, proxy)
        # The server is still at it: what is read now is rightly old, and must not stay.
        assert await other.get_or_load("k", load) == "old"
        assert cache._parts.recovery.covers("k", ())
        await connection.execute("SELECT pg_advisory_unlock(77)")
        await until(lambda: _is(load, "new"))
        await until(lambda: not cache._parts.recovery.covers("k", ()))
        assert await cache.get_or_load("k", load) == "new"
        await until(lambda: _is(lambda: other.get_or_load("k", load), "new"))
        await until(lambda: _empty(direct))


async def _is(load: Callable[[], Any], value: object) -> bool:
    return bool(await load() == value)


async def test_an_unknown_commit_that_did_not_take_place(
    proxied: tuple[Pool, Pool, FaultProxy], redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """Nothing is left to do, and the tiers are used again."""
    direct, through, proxy = proxied
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=through)
    async with cache:
        await cache.set("k", "old")
        await _commit_lost(direct, through, cache, proxy)
        await until(lambda: not cache._parts.recovery.covers("k", ()))
        assert await direct.fetchval("SELECT name FROM users") == "old"
        assert await rows(direct) == ["{}"]  # in the place of the row that must not come any more


async def test_an_event_waits_until_its_commit_is_known(
    proxied: tuple[Pool, Pool, FaultProxy], redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """Its handlers are called, here and elsewhere, once it has committed; its rules at once."""
    direct, through, proxy = proxied
    await _slow_commits(direct)
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=through)
    other = make_cache(MemoryTier(), RedisTier(redis_url), name="app")
    cache.on("renamed", keys=["user:{id}"])
    async with cache, other, direct.acquire() as connection:
        here, there = _hear(cache), _hear(other)
        await cache.set("user:1", "old")
        assert await other.get("user:1") == "old"
        await connection.execute("SELECT pg_advisory_lock(77)")
        await _commit_unknown(through, cache, proxy)
        await until(lambda: _is(lambda: other.get("user:1"), None))
        await cache.emit("renamed", id=2)  # what was said before has arrived when this does
        await until(lambda: there)
        assert (here, there) == ([2], [2])
        await connection.execute("SELECT pg_advisory_unlock(77)")
        await until(lambda: 1 in here and 1 in there)
        await until(lambda: _empty(direct))


async def test_an_event_of_a_commit_that_did_not_take_place(
    proxied: tuple[Pool, Pool, FaultProxy], redis_url: str, make_cache: Callable[..., Cache]
) -> None:
    """Nobody hears of what has not happened."""
    direct, through, proxy = proxied
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=through)
    other = make_cache(MemoryTier(), RedisTier(redis_url), name="app")
    async with cache, other:
        here, there = _hear(cache), _hear(other)
        await _commit_lost(direct, through, cache, proxy)
        await until(lambda: not cache._parts.recovery.covers("k", ()))
        await cache.emit("renamed", id=2)
        await until(lambda: there)
        assert (here, there) == ([2], [2])


async def test_an_event_of_which_nobody_can_ask(
    proxied: tuple[Pool, Pool, FaultProxy],
    redis_url: str,
    make_cache: Callable[..., Cache],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without an outbox it is dropped, with a warning; what its rules name is invalidated."""
    _, through, proxy = proxied
    cache = make_cache(MemoryTier(), RedisTier(redis_url), name="app", outbox=None)
    cache.on("renamed", keys=["user:{id}"])
    async with cache:
        here = _hear(cache)
        await cache.set("user:1", "old")
        await _commit_unknown(through, cache, proxy)
        assert await cache.get("user:1") is None
        assert here == []
        assert "event 'renamed' is not delivered" in caplog.text


async def test_a_commit_that_was_given_up_cannot_take_place(
    postgres_dsn: str, make_cache: Callable[..., Cache]
) -> None:
    """Once somebody was told that a transaction did not commit, the server refuses its COMMIT."""
    async with Pool(postgres_dsn) as pool:
        await pool.execute("CREATE TABLE users (id int)")
        table = make_cache(RedisTier("redis://x"), name="app", outbox=pool)._life.settings.outboxes[
            0
        ]
        await table.prepare()
        with pytest.raises(asyncpg.UniqueViolationError):
            async with pool.transaction() as tx:
                await tx.execute("INSERT INTO users VALUES (1)")
                receipt = await table.insert(tx, "me", itertools.count(1 << 62), ["{}"])
                assert await table.fate("me", receipt) == "aborted"
        assert await pool.fetchval("SELECT count(*) FROM users") == 0
        assert await table.take("me", 1.0, 10) == []  # the place is kept for a while
        async with pool.transaction() as tx:
            committed = await table.insert(tx, "me", itertools.count(1), ['{"k":["it\'s \\"]}'])
        assert await table.fate("me", committed) == "committed"
        assert "it's \\" in (await rows(pool))[0]
        await table.aclose()


async def test_the_fate_of_a_commit_under_way_is_waited_for(
    postgres_dsn: str, make_cache: Callable[..., Cache]
) -> None:
    """As long as the server is at it nobody says how it ends."""
    async with Pool(postgres_dsn) as pool:
        table = make_cache(RedisTier("redis://x"), name="app", outbox=pool)._life.settings.outboxes[
            0
        ]
        await table.prepare()
        async with pool.transaction() as tx:
            rowed = "INSERT INTO tiercache_outbox (id, namespace, body) OVERRIDING SYSTEM VALUE"
            await tx.execute(f"{rowed} VALUES (5, 'app', '{{}}')")
            asking = asyncio.create_task(table.fate("me", Receipt(table, (5,))))
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            await until(lambda: _is(lambda: pool.fetchval(waits), 1))
            assert not asking.done()
        assert await asking == "committed"
        await table.aclose()
