"""`PostgresBus`: events in a table, commits out of order, and a server that does not behave."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from poolkit import Pool
from tests.contracts.bus import (
    Join,
    Recorder,
    SharedBusContract,
    SharedMedium,
    about,
    is_one_gap,
    joined,
    listening,
    sits_out_a_pause,
    trying,
)
from tests.contracts.tier import load
from tests.servers.postgres import PostgresServer
from tiercache._sql import events
from tiercache._sql.events import EVENT, Mark, PostgresEvents, Snapshot
from tiercache._sql.names import Tables
from tiercache._sql.places import PostgresPlace, place_of
from tiercache.bus import postgres
from tiercache.bus.postgres import PostgresBus
from tiercache.errors import TierError
from tiercache.tiers.base import Ask
from tiercache.tiers.database import DatabaseTier

TABLES = Tables.of("tiercache")
APP = PostgresEvents(TABLES, "app")
WRITE = "INSERT INTO tiercache_event (namespace, kind, body) VALUES ('app', 'e', $1)"


def bus_on(dsn: str, name: str = "app", timeout: float = 5.0) -> PostgresBus:
    """Return a bus with connections of its own, as another process would have."""
    place = place_of(Pool(dsn, min_size=0), timeout, 2)
    assert isinstance(place, PostgresPlace)
    return PostgresBus(place, TABLES, name, timeout=timeout)


class TestPostgresBus(SharedBusContract):
    @pytest.fixture
    def medium(self, postgres_dsn: str) -> SharedMedium:
        """A new database."""
        return SharedMedium(bus_on, postgres_dsn)

    async def test_all_listeners_agree_on_the_order(self, join: Join) -> None:
        """What is sent at one moment comes to everybody in any order, and before what follows."""
        (one, here), (two, there) = await join(), await join()
        names = {f"{name}{n}" for n in range(50) for name in "ab"}
        await asyncio.gather(
            *(bus.publish([about(f"{name}{n}")]) for n in range(50) for name, bus in
              (("a", one), ("b", two)))
        )  # fmt: skip
        await one.publish([about("last")])
        for recorder in (here, there):
            await recorder.until(lambda recorder=recorder: "last" in recorder.names)
            assert len(recorder.names) == 101
            assert set(recorder.names[:-1]) == names


@pytest_asyncio.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """Connections for the test itself, on a database that has a table of events."""
    async with Pool(postgres_dsn, min_size=0, max_size=5) as pool:
        for sql in APP.schema():
            await pool.execute(sql)
        yield pool


# What can be seen, and when


async def test_commits_out_of_order_are_all_heard(pool: Pool, postgres_dsn: str) -> None:
    """Of two open transactions the younger commits first: both events come, none twice, no gap."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        gaps = len(recorder.gaps)
        older = pool.transaction()
        async with older as tx:
            await tx.execute(WRITE, about("older"))
            async with pool.transaction(independent=True) as younger:
                await younger.execute(WRITE, about("younger"))
            await bus.publish([about("seen")])
            await recorder.until(lambda: "seen" in recorder.names)
        await bus.publish([about("last")])
        await recorder.until(lambda: "last" in recorder.names)
        assert recorder.names == ["younger", "seen", "older", "last"]
        assert len(recorder.gaps) == gaps


async def test_a_long_transaction_delays_nobody(pool: Pool, postgres_dsn: str) -> None:
    """While a transaction that has written stays open, events of others come at once, once each."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder), pool.transaction() as tx:
        await tx.execute(WRITE, about("late"))
        for n in range(20):
            await bus.publish([about(str(n))])
            await recorder.until(lambda n=n: recorder.names[-1:] == [str(n)])
        assert recorder.names == [str(n) for n in range(20)]


async def test_an_event_in_a_savepoint(pool: Pool, postgres_dsn: str) -> None:
    """The number of a subtransaction is not that of its row: it is seen when the whole commits."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        async with pool.transaction() as tx:
            async with tx.transaction():
                await tx.execute(WRITE, about("inner"))
            await bus.publish([about("first")])
            await recorder.until(lambda: recorder.names == ["first"])
        await recorder.until(lambda: recorder.names == ["first", "inner"])


async def test_a_lost_notification_costs_a_heartbeat(pool: Pool, postgres_dsn: str) -> None:
    """Rows that nobody tells of are found by the reader itself."""
    async with joined(bus_on(postgres_dsn)) as (_, recorder):
        await pool.execute(WRITE, about("silent"))
        await recorder.until(lambda: recorder.names == ["silent"])


async def test_rows_in_the_outbox_are_told_of(pool: Pool, postgres_dsn: str) -> None:
    """A notification that says "outbox", and every connection, stir the listener."""
    async with joined(bus_on(postgres_dsn)) as (_, recorder):
        await recorder.until(lambda: recorder.log.count("stirred") == 1)
        await pool.execute("SELECT pg_notify('tiercache_event', 'outbox')")
        await recorder.until(lambda: recorder.log.count("stirred") == 2)


async def test_events_outlive_a_crash_whatever_the_application_does_without(pool: Pool) -> None:
    """Where ``synchronous_commit`` is off, the transaction of an event turns it on for itself."""
    [statement] = APP.publish([about("a")])
    async with pool.acquire() as connection:
        await connection.execute("SET synchronous_commit = off")
        async with connection.transaction() as tx:
            await tx.fetch(statement.sql, *statement.args)
            assert await tx.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SHOW synchronous_commit") == "off"


# What was missed


async def test_a_terminated_connection_is_replayed_without_a_gap(
    pool: Pool, postgres_dsn: str
) -> None:
    """Events sent while the reader was away come once each after it is back."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        gaps = len(recorder.gaps)
        await bus.publish([about("before")])
        await recorder.until(lambda: bool(recorder.names))
        await _terminate_readers(pool)
        await bus.publish([about(str(n)) for n in range(10)])
        await recorder.until(lambda: len(recorder.names) == 11)
        await recorder.until_connected()
        assert recorder.names == ["before", *(str(n) for n in range(10))]
        assert len(recorder.gaps) == gaps
        assert "disconnected" in recorder.log


async def test_removed_unread_is_a_gap(pool: Pool, postgres_dsn: str) -> None:
    """A reader finds in the mark that something was removed which it has not seen."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        gaps = len(recorder.gaps)
        async with pool.transaction() as tx:  # forgotten in the very step that makes them
            await tx.execute(WRITE, about("unread"))
            await tx.execute("DELETE FROM tiercache_event WHERE id > 0")
            mark = Mark.parse(await tx.fetchval("SELECT body FROM tiercache_event WHERE id = 0"))
            after = await tx.fetchval("SELECT txid_current()") + 1
            removed = Snapshot.parse(f"{after}:{after}:")
            sql = "UPDATE tiercache_event SET body = $1 WHERE id = 0"
            await tx.execute(sql, mark._replace(removed=removed).encode())
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["b"])
        assert len(recorder.gaps) == gaps + 1


@pytest.mark.parametrize(
    "sql",
    [
        "TRUNCATE tiercache_event",
        "TRUNCATE tiercache_event RESTART IDENTITY",
        "DELETE FROM tiercache_event",
        "DROP TABLE tiercache_event",
    ],
)
async def test_an_emptied_table_is_a_gap(pool: Pool, postgres_dsn: str, sql: str) -> None:
    """An administrator's clearing is noticed though nothing is sent; then events come again."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        await is_one_gap(bus, recorder, lambda: pool.execute(sql))


async def test_another_server_is_a_gap(pool: Pool, postgres_dsn: str) -> None:
    """Who reconnects and finds a server with another history trusts nothing."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        gaps = len(recorder.gaps)
        position = await _cut_off(bus, recorder, pool)
        assert position.server.endswith(" 00000001")
        bus._position = position._replace(server="7 00000002")
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await recorder.until_connected()
        assert recorder.gaps[-1] == "the database is on another server now"


async def test_a_promoted_standby_is_another_server(private_postgres: PostgresServer) -> None:
    """A standby has the same events and, once it is promoted, a history of its own."""
    async with joined(bus_on(private_postgres.dsn)) as (first, _):
        assert first._position is not None
        before = first._position.server
    with await asyncio.to_thread(private_postgres.standby) as standby:
        await asyncio.to_thread(standby.promote)
        async with joined(bus_on(standby.dsn)) as (second, _):
            assert second._position is not None
            after = second._position.server
    assert before.split()[0] == after.split()[0]
    assert (before.split()[1], after.split()[1]) == ("00000001", "00000002")


async def test_to_be_away_for_too_long_is_a_gap(pool: Pool, postgres_dsn: str) -> None:
    """Beyond what is read again, transactions whose numbers a crash gave twice might be missed."""
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        gaps = len(recorder.gaps)
        position = await _cut_off(bus, recorder, pool)
        bus._position = position._replace(at=position.at - postgres.AGAIN - 1)
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        assert recorder.gaps[-1] == "the bus was away for too long"


async def test_numbers_that_a_crash_gave_twice(pool: Pool, postgres_dsn: str) -> None:
    """After a reconnect the last minute is read again, whatever the numbers; nothing comes twice.

    The reader here has seen transactions that the server, as it is now, has not begun yet.
    """
    async with joined(bus_on(postgres_dsn)) as (bus, recorder):
        await bus.publish([about("once")])
        await recorder.until(lambda: recorder.names == ["once"])
        gaps = len(recorder.gaps)
        position = await _cut_off(bus, recorder, pool)
        ahead = position.snapshot.end + 1000
        bus._position = position._replace(snapshot=Snapshot.parse(f"{ahead}:{ahead}:"))
        await bus.publish([about("again")])
        await recorder.until(lambda: "again" in recorder.names)
        await recorder.until_connected()
        assert recorder.names == ["once", "again"]
        assert len(recorder.gaps) == gaps


# Removing


@pytest.mark.parametrize("old", [True, False])
async def test_old_events_are_removed_and_nobody_has_a_gap(
    pool: Pool, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """Events that are old, or too many, are removed by the readers once all of them have read."""
    monkeypatch.setattr(postgres, "PRUNE_EVERY", 0.0)
    monkeypatch.setattr(events, "KEPT", 1000 if old else 5)
    async with (
        joined(bus_on(postgres_dsn)) as (bus, here),
        joined(bus_on(postgres_dsn)) as (_, there),
    ):
        gaps = len(here.gaps) + len(there.gaps)
        await bus.publish([about(str(n)) for n in range(50)])
        for recorder in (here, there):
            await recorder.until(lambda recorder=recorder: len(recorder.names) == 50)
        if old:
            await pool.execute("UPDATE tiercache_event SET at = at - interval '1 h' WHERE id > 0")
        left = 0 if old else 5
        async with asyncio.timeout(15):
            while await pool.fetchval("SELECT count(*) FROM tiercache_event WHERE id > 0") > left:
                await bus.publish([])
                await asyncio.sleep(0.01)
        await bus.publish([about("after")])
        for recorder in (here, there):
            await recorder.until(lambda recorder=recorder: recorder.names[-1:] == ["after"])
            assert len(recorder.names) == 51
        assert len(here.gaps) + len(there.gaps) == gaps


async def test_what_a_reader_may_not_have_seen_is_not_removed_by_others(pool: Pool) -> None:
    """Nothing that was invisible to the given snapshot goes, nor anything after another's mark."""
    mark = Mark.parse(await pool.fetchval("SELECT body FROM tiercache_event WHERE id = 0"))
    before = Snapshot.parse(await pool.fetchval("SELECT txid_current_snapshot()::text"))
    await pool.execute(WRITE, about("a"))
    await pool.execute("UPDATE tiercache_event SET at = at - interval '1 h' WHERE id > 0")
    seen = Snapshot.parse(await pool.fetchval("SELECT txid_current_snapshot()::text"))
    stale = Mark("another stream", mark.removed)
    for given, snapshot, gone in ((mark, before, 0), (stale, seen, 0), (mark, seen, 1)):
        statement = APP.prune(given, snapshot)
        assert await pool.fetchval(statement.sql, *statement.args) == gone
    body = await pool.fetchval("SELECT body FROM tiercache_event WHERE id = 0")
    assert Mark.parse(body) == Mark(mark.stream, seen)


# Joining


async def test_nobody_is_connected_before_the_own_probe_came_back(
    pool: Pool, postgres_dsn: str
) -> None:
    """A database that swallows what is written cannot carry events; when it stops that, it can."""
    await pool.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    await pool.execute(
        "CREATE TRIGGER swallow BEFORE INSERT ON tiercache_event FOR EACH ROW"
        " WHEN (NEW.kind = 'p') EXECUTE FUNCTION swallow()"
    )
    async with trying(bus_on(postgres_dsn)) as recorder:
        await recorder.until(lambda: "gap" in recorder.log)
        sql = "SELECT last_value FROM tiercache_event_id_seq"
        async with asyncio.timeout(15):
            while await pool.fetchval(sql) < 2:  # it has tried twice
                await asyncio.sleep(0.01)
        assert not recorder.is_connected
        await pool.execute("DROP TRIGGER swallow ON tiercache_event")
        await recorder.until_connected()


async def test_a_pooler_between_transactions_is_no_way_to_listen(
    pgbouncer_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind it nothing would be heard: the bus says so once and goes on trying."""
    caplog.set_level(logging.DEBUG, "tiercache.bus")
    place = place_of(Pool(pgbouncer_dsn, min_size=0, statement_cache_size=0), 5.0, 2)
    assert isinstance(place, PostgresPlace)
    async with trying(PostgresBus(place, TABLES, "app", timeout=5.0)) as recorder:
        async with asyncio.timeout(15):
            while sum(each.name == "tiercache.bus" for each in caplog.records) < 2:
                await asyncio.sleep(0.01)
        assert not recorder.is_connected
    levels = [record.levelno for record in caplog.records if record.name == "tiercache.bus"]
    assert levels[0] == logging.WARNING
    assert set(levels[1:]) == {logging.DEBUG}


async def test_a_role_that_may_make_no_tables(pool: Pool, postgres_dsn: str) -> None:
    """Where an administrator has made the table, a plain role can listen and publish."""
    await pool.execute("DROP ROLE IF EXISTS plain_bus")
    await pool.execute("CREATE ROLE plain_bus LOGIN")
    grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON tiercache_event TO plain_bus"
    await pool.execute(grant)
    async with joined(bus_on(postgres_dsn.replace("postgres@", "plain_bus@"))) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: recorder.names == ["a"])
        assert bus._position is not None
        assert bus._position.server
    await pool.execute(grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    await pool.execute("DROP ROLE plain_bus")


# The server goes away


async def test_a_restart_of_the_server_is_replayed(private_postgres: PostgresServer) -> None:
    """Committed events outlive a crash: disconnected, connected, and no gap."""
    async with joined(bus_on(private_postgres.dsn, timeout=1.0)) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: recorder.names == ["a"])
        recorder.log.clear()
        await asyncio.to_thread(private_postgres.kill)
        await recorder.until(lambda: not recorder.is_connected)
        with pytest.raises(TierError) as caught:
            await bus.publish([about("lost")])
        assert caught.value.unavailable
        await asyncio.to_thread(private_postgres.start)
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["a", "b"])
        await recorder.until_connected()
        assert "gap" not in recorder.log


async def test_a_server_that_hangs_is_disconnected_and_replayed(
    private_postgres: PostgresServer,
) -> None:
    """SIGSTOP is noticed at the next heartbeat, and what was sent meanwhile comes without a gap."""
    async with joined(bus_on(private_postgres.dsn, timeout=0.5)) as (bus, recorder):
        await sits_out_a_pause(bus, recorder, private_postgres)


async def test_a_bus_may_be_started_before_its_server(
    private_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """`run` waits for a server that is not there yet, and does not complain."""
    private_postgres.kill()
    async with trying(bus_on(private_postgres.dsn)) as recorder:
        await asyncio.to_thread(private_postgres.start)
        await recorder.until_connected()
        assert recorder.log[:2] == ["gap", "connected"]
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


# Riding


async def test_events_ride_on_the_deletions_of_the_tier(pool: Pool, postgres_dsn: str) -> None:
    """The tier publishes in the transaction that deletes: both or neither, and heard at once."""
    tier = DatabaseTier(postgres_dsn)
    tier.bind("app")
    assert isinstance(tier.place, PostgresPlace)
    bus = PostgresBus(tier.place, tier.tables, "app", timeout=5)
    assert not bus.rides_on(tier)
    bus.ride(tier)
    assert bus.rides_on(tier)
    await load(tier, "a", b"v", ("t",))
    async with listening(bus) as recorder:
        await tier.invalidate(["a"], ["t"], [about("a"), about("b")])
        assert await tier.read([Ask("a", None)]) == [None]
        await tier.clear([about("all")])
        await recorder.until(lambda: recorder.names == ["a", "b", "all"])
        await load(tier, "a", b"v", ("t",))
        sql = "ALTER TABLE tiercache_event ADD CONSTRAINT none CHECK (kind <> 'e') NOT VALID"
        await pool.execute(sql)
        with pytest.raises(TierError, match="none"):
            await tier.invalidate(["a"], [], [about("c")])
        assert await tier.read([Ask("a", None)]) != [None]
    await tier.aclose()


async def test_a_tier_makes_the_table_that_its_events_need(postgres_dsn: str) -> None:
    """Whoever invalidates before the bus has ever connected publishes all the same."""
    tier = DatabaseTier(postgres_dsn)
    tier.bind("app")
    assert isinstance(tier.place, PostgresPlace)
    PostgresBus(tier.place, tier.tables, "app", timeout=5).ride(tier)
    await tier.invalidate(["a"], [], [about("a")])
    async with Pool(postgres_dsn) as pool:
        sql = "SELECT kind, namespace FROM tiercache_event WHERE id > 0"
        assert [tuple(row) for row in await pool.fetch(sql)] == [(EVENT, "app")]
    await tier.aclose()


async def _cut_off(bus: PostgresBus, recorder: Recorder, pool: Pool) -> postgres._Position:
    """End the reader's connection; it waits a moment before it connects anew."""
    await _terminate_readers(pool)
    await recorder.until(lambda: not recorder.is_connected)
    assert bus._position is not None
    return bus._position


async def _terminate_readers(pool: Pool) -> None:
    sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE $1"
    like = "%txid_current_snapshot()::text, extract%"
    assert await pool.fetchval(sql + " AND pid <> pg_backend_pid()", like) >= 1
