"""`DatabaseTier` on PostgreSQL: pools, roles, and every way a server can fail."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from poolkit import Connection, Pool
from tests.contracts.tier import LEASE, TTL, load, payload_of, read_one
from tests.servers.postgres import PostgresServer
from tests.tiercache.tiers.database_stories import failing, nothing_stale
from tiercache.errors import TierError
from tiercache.tiers.base import Ask, Fill
from tiercache.tiers.database import DatabaseTier


def tier_on(database: Pool | str, **options: Any) -> DatabaseTier:
    """Make a tier, bound to the cache ``app``."""
    tier = DatabaseTier(database, **options)
    tier.bind("app")
    return tier


@pytest_asyncio.fixture
async def tier(postgres_dsn: str) -> AsyncIterator[DatabaseTier]:
    """A tier on a new database."""
    tier = tier_on(postgres_dsn)
    yield tier
    await tier.aclose()


# Times


async def test_the_clock_of_the_server_counts(
    tier: DatabaseTier, postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """What the server holds to be over is over, for a value and for a lease."""
    await load(tier, "a", b"v")
    [basis] = await tier.lease([Ask("b", ())], LEASE)
    postgres_server.psql(
        "UPDATE tiercache_entry SET expires = now() - interval '1 ms'", postgres_dsn
    )
    assert await payload_of(tier, "a") is None
    assert await tier.fill([Fill(basis, b"v", TTL)]) == [False]
    assert await tier.prune(10) == 2


# Pools


async def test_a_caller_that_holds_the_only_connection_keeps_nobody_waiting(
    postgres_dsn: str,
) -> None:
    """Inside a transaction on a pool of one the cache reads and writes, and takes no part in it."""
    async with Pool(postgres_dsn, max_size=1) as pool:
        tier = tier_on(pool)
        async with asyncio.timeout(20):
            async with pool.transaction() as transaction:
                await transaction.execute("CREATE TABLE mine (x int)")
                assert await load(tier, "a", b"v", ("t",))
                await tier.invalidate(["a"], ["t"])
                assert await load(tier, "b", b"v")
                await transaction.execute("INSERT INTO mine VALUES (1)")
        assert pool.stats().max_size == 1
        await tier.aclose()
        assert await pool.fetchval("SELECT count(*) FROM mine") == 1


async def test_a_rollback_of_the_caller_does_not_touch_the_cache(postgres_dsn: str) -> None:
    """What was filled or invalidated inside somebody's transaction does not hang on its outcome."""
    async with Pool(postgres_dsn) as pool:
        tier = tier_on(pool)
        await load(tier, "gone", b"v")

        async def change_and_fail() -> None:
            async with pool.transaction():
                await load(tier, "a", b"v")
                await tier.invalidate(["gone"], [])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await change_and_fail()
        assert await payload_of(tier, "a") == b"v"
        assert await payload_of(tier, "gone") is None
        await tier.aclose()


async def test_the_pool_belongs_to_its_owner(postgres_dsn: str) -> None:
    """Closing the tier leaves the pool open; closing the pool leaves the tier working."""
    pool = Pool(postgres_dsn)
    async with pool:
        tier = tier_on(pool)
        await load(tier, "a", b"v")
        await tier.aclose()
        assert await pool.fetchval("SELECT 1") == 1
        assert await payload_of(tier, "a") == b"v"
    assert await payload_of(tier, "a") == b"v"
    await tier.aclose()


async def test_settings_of_the_pool_hold_for_the_cache(postgres_dsn: str) -> None:
    """What an application does to its connections is done to those of the cache, and is no harm."""

    async def init(connection: Connection) -> None:
        for name in ("json", "jsonb"):
            await connection.raw.set_type_codec(
                name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
            )
        await connection.execute("SET search_path TO elsewhere")

    async with Pool(postgres_dsn, init=init) as pool:
        await pool.execute("CREATE SCHEMA elsewhere")
        tier = tier_on(pool)
        assert await load(tier, "a", b"v", ("t",))
        assert await payload_of(tier, "a", ("t",)) == b"v"
        assert await pool.fetchval("SELECT count(*) FROM elsewhere.tiercache_entry") == 1
        await tier.aclose()


async def test_loops_in_other_threads(tier: DatabaseTier, postgres_dsn: str) -> None:
    """Each loop has its own connections; closing ends those of every loop that runs."""
    await load(tier, "a", b"v")
    here, stop = asyncio.get_running_loop(), threading.Event()
    ready = asyncio.Event()

    async def elsewhere() -> None:
        assert await payload_of(tier, "a") == b"v"
        here.call_soon_threadsafe(ready.set)
        await asyncio.to_thread(stop.wait, 20)

    thread = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(elsewhere())))
    await ready.wait()
    connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    async with Pool(postgres_dsn, min_size=0, max_size=1) as pool:
        assert await pool.fetchval(connections) == 3
        await tier.aclose()
        async with asyncio.timeout(10):
            while await pool.fetchval(connections) > 1:  # the server takes note a moment later
                await asyncio.sleep(0.005)
    stop.set()
    await thread


async def test_there_is_no_blocking_face(tier: DatabaseTier) -> None:
    """PostgreSQL is spoken to on loops alone."""
    assert tier.blocking is None


# Races


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_writers_of_the_same_rows_all_get_through(
    postgres_server: PostgresServer, postgres_dsn: str, isolation: str
) -> None:
    """Lost races are run again, also where the database isolates more than it must."""
    name = postgres_dsn.rpartition("/")[2]
    postgres_server.psql(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    tiers = [tier_on(postgres_dsn, max_size=2) for _ in range(2)]
    keys = [f"k{n}" for n in range(5)]

    async def work(tier: DatabaseTier, order: list[str]) -> None:
        for _ in range(5):
            bases = await tier.lease([Ask(key, ("t", key)) for key in order], LEASE)
            await tier.fill([Fill(basis, b"v", TTL) for basis in bases])
            await tier.invalidate(order[:2], [order[2]])

    await asyncio.gather(*(work(tier, keys[:: 1 - 2 * turn]) for turn, tier in enumerate(tiers)))
    for tier in tiers:
        await tier.aclose()


async def test_no_read_is_older_than_the_last_invalidation(postgres_dsn: str) -> None:
    """Loads, refreshes, invalidations and clears at random: what is read is never out of date."""
    tiers = [tier_on(postgres_dsn) for _ in range(3)]
    assert await nothing_stale(tiers) > 0
    for tier in tiers:
        await tier.aclose()


# Rights


@pytest.fixture
def guest(postgres_server: PostgresServer, postgres_dsn: str) -> Iterator[str]:
    """The DSN of a role that may connect and nothing else."""
    name = postgres_dsn.rpartition("/")[2]
    postgres_server.psql(f"CREATE ROLE guest_of_{name} LOGIN")
    postgres_server.psql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", postgres_dsn)
    yield postgres_dsn.replace("postgres@", f"guest_of_{name}@")
    postgres_server.psql(f"DROP OWNED BY guest_of_{name}", postgres_dsn)
    postgres_server.psql(f"DROP ROLE guest_of_{name}")


async def test_a_role_that_may_not_create_tables(
    postgres_server: PostgresServer, postgres_dsn: str, guest: str
) -> None:
    """The error says what to grant or to run; with tables and rights in place all is well."""
    tier = tier_on(guest)
    with failing("read", r"DatabaseTier\.schema\('postgresql'\)", unavailable=False):
        await tier.read([Ask("a", ())])
    postgres_server.psql(DatabaseTier.schema("postgresql"), postgres_dsn)
    rights = "SELECT, INSERT, UPDATE, DELETE"
    tables = "tiercache_entry, tiercache_tag, tiercache_meta"
    with failing("read", f"GRANT {rights} ON {tables}", unavailable=False):
        await tier.read([Ask("a", ())])
    role = guest.partition("//")[2].partition("@")[0]
    postgres_server.psql(f"GRANT {rights} ON {tables} TO {role}", postgres_dsn)
    assert await load(tier, "a", b"v", ("t",))
    assert await payload_of(tier, "a", ("t",)) == b"v"
    assert await tier.prune(10) == 0
    await tier.aclose()


async def test_a_schema_that_is_not_there(tier: DatabaseTier, postgres_dsn: str) -> None:
    """The error says to create it or to name another."""
    other = tier_on(postgres_dsn, prefix="nowhere.tiercache")
    with failing("open", "Create the schema", unavailable=False):
        await other.open()
    await other.aclose()


async def test_a_server_that_takes_no_writes(
    postgres_server: PostgresServer, postgres_dsn: str, tier: DatabaseTier
) -> None:
    """A standby, or a database set to read only, is left alone: what it has may be old."""
    await tier.open()
    await tier.aclose()
    name = postgres_dsn.rpartition("/")[2]
    postgres_server.psql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with failing("lease", "point to the primary", unavailable=True):
        await tier.lease([Ask("a", ())], LEASE)


async def test_a_database_that_is_not_there(postgres_dsn: str) -> None:
    """A wrong name in the URL is told, without the password that stands there, too."""
    tier = tier_on(f"{postgres_dsn}_no".replace("postgres@", "postgres:secret@"))
    with failing("open", "Check user, password and database", unavailable=True):
        await tier.open()
    with pytest.raises(TierError) as caught:
        await tier.open()
    assert "secret" not in str(caught.value)
    await tier.aclose()


# Tables


async def test_tables_of_another_version(
    postgres_server: PostgresServer, postgres_dsn: str, tier: DatabaseTier
) -> None:
    """What another tiercache has made is not touched, and the ways out are named."""
    await load(tier, "a", b"v")
    await tier.aclose()
    postgres_server.psql("UPDATE tiercache_meta SET value = '7'", postgres_dsn)
    with pytest.raises(TierError, match=r"version 7.*drop tiercache_entry.*prefix="):
        await tier.read([Ask("a", ())])
    other = tier_on(postgres_dsn, prefix="other")
    assert await load(other, "a", b"v")
    await other.aclose()


async def test_tables_that_were_dropped_are_made_again(
    postgres_server: PostgresServer, postgres_dsn: str, tier: DatabaseTier
) -> None:
    """An administrator who drops the tables has emptied the cache."""
    await load(tier, "a", b"v")
    [basis] = await tier.lease([Ask("b", ())], LEASE)
    postgres_server.psql("DROP TABLE tiercache_entry, tiercache_tag, tiercache_meta", postgres_dsn)
    assert await tier.fill([Fill(basis, b"v", TTL)]) == [False]
    assert await payload_of(tier, "a") is None


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
async def test_many_tiers_that_start_together(
    private_postgres: PostgresServer, isolation: str
) -> None:
    """Whoever makes the tables, the others find them and do not make them once more."""
    private_postgres.psql(
        f"ALTER DATABASE postgres SET default_transaction_isolation = '{isolation}'"
    )
    tiers = [tier_on(private_postgres.dsn, timeout=20.0) for _ in range(6)]

    async def start(tier: DatabaseTier) -> None:
        for turn in range(20):
            assert await load(tier, f"{id(tier)} {turn}", b"v", ("t", f"t{turn}"))

    await asyncio.gather(*map(start, tiers))
    assert "deadlock detected" not in private_postgres.log
    for tier in tiers:
        await tier.aclose()


async def test_events_ride_with_the_deletions(tier: DatabaseTier, postgres_dsn: str) -> None:
    """Deletions and what a bus writes for them are done together or not at all."""
    async with Pool(postgres_dsn) as pool:
        await pool.execute("CREATE TABLE event (body bytea NOT NULL)")
        insert = "INSERT INTO event SELECT unnest($1::bytea[])"
        tier.announce(lambda events: [(insert, (list(events),))])
        await load(tier, "a", b"v")
        await tier.invalidate(["a"], [], [b"one", b"two"])
        await load(tier, "a", b"v")
        await tier.clear([b"three"])
        rows = await pool.fetch("SELECT body FROM event")
        assert [row[0] for row in rows] == [b"one", b"two", b"three"]
        await load(tier, "a", b"v")
        tier.announce(lambda events: [("INSERT INTO event VALUES (NULL)", ())])
        with failing("invalidate", "null value", unavailable=False):
            await tier.invalidate(["a"], [], [b"four"])
        assert await payload_of(tier, "a") == b"v"


# The server goes away


async def test_a_server_that_comes_up_later(private_postgres: PostgresServer) -> None:
    """A refused connection fails at once; when the server is there, it is found."""
    await asyncio.to_thread(private_postgres.stop)
    tier = tier_on(private_postgres.dsn)
    with failing("read", "Check that it runs", unavailable=True):
        await tier.read([Ask("a", ())])
    await asyncio.to_thread(private_postgres.start)
    assert await load(tier, "a", b"v")
    await tier.aclose()


async def test_a_server_that_is_killed_and_started_again(private_postgres: PostgresServer) -> None:
    """The crash is told, and afterwards what was stored is there and works on."""
    tier = tier_on(private_postgres.dsn)
    await load(tier, "a", b"v", ("t",))
    stored = await read_one(tier, "a", ("t",))
    await asyncio.to_thread(private_postgres.kill)
    with pytest.raises(TierError) as caught:
        await tier.read([Ask("a", ("t",))])
    assert caught.value.unavailable
    await asyncio.to_thread(private_postgres.start)
    async with asyncio.timeout(20):
        while not await answers(tier):
            await asyncio.sleep(0.01)
    assert await payload_of(tier, "a", ("t",)) == b"v"
    assert await tier.fill([Fill(stored.basis, b"2", TTL)]) == [True]
    await tier.aclose()


async def answers(tier: DatabaseTier) -> bool:
    """Say whether the tier gives a sign of life."""
    try:
        await tier.ping()
    except TierError:
        return False
    return True


async def test_unlogged_tables_are_empty_after_a_crash(private_postgres: PostgresServer) -> None:
    """And empty means a miss, for a fill that began before, too."""
    tier = tier_on(private_postgres.dsn, unlogged=True)
    await load(tier, "a", b"v", ("t",))
    stored = await read_one(tier, "a", ("t",))
    await asyncio.to_thread(private_postgres.kill)
    await asyncio.to_thread(private_postgres.start)
    async with asyncio.timeout(20):
        while not await answers(tier):
            await asyncio.sleep(0.01)
    assert await payload_of(tier, "a", ("t",)) is None
    assert await tier.fill([Fill(stored.basis, b"stale", TTL)]) == [False]
    await tier.aclose()


async def test_a_server_that_stands_still(private_postgres: PostgresServer) -> None:
    """Every operation can be given up, closing is bounded, and it works on when the server does."""
    tier = tier_on(private_postgres.dsn, timeout=0.2)
    await load(tier, "a", b"v")
    [basis] = await tier.lease([Ask("b", ())], LEASE)
    await asyncio.to_thread(private_postgres.pause)
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: tier.read([Ask("a", ())]),
        lambda: tier.lease([Ask("b", ())], LEASE),
        lambda: tier.fill([Fill(basis, b"v", TTL)]),
        lambda: tier.invalidate(["b"], ["t"]),
        lambda: tier.clear(),
        lambda: tier.prune(10),
        lambda: tier.ping(),
    ]
    async with asyncio.timeout(20):
        for operation in operations:
            with pytest.raises((TimeoutError, TierError)):
                async with asyncio.timeout(0.2):
                    await operation()
    await asyncio.to_thread(private_postgres.resume)
    async with asyncio.timeout(20):
        while not await answers(tier):
            await asyncio.sleep(0.01)
    await load(tier, "c", b"v")
    await asyncio.to_thread(private_postgres.pause)
    async with asyncio.timeout(20):
        await tier.aclose()
    await asyncio.to_thread(private_postgres.resume)
