"""`SqliteBus`: events in a file that several processes have open, and what may become of it."""

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit import Pool
from tests.contracts.bus import (
    Recorder,
    SharedBusContract,
    SharedMedium,
    about,
    is_one_gap,
    joined,
    listening,
    trying,
)
from tests.contracts.tier import load
from tiercache._sql import events
from tiercache._sql.names import Tables
from tiercache._sql.places import SqlitePlace, place_of
from tiercache.bus import sqlite
from tiercache.bus.sqlite import SqliteBus
from tiercache.errors import TierError
from tiercache.tiers.base import Ask
from tiercache.tiers.database import DatabaseTier

TABLES = Tables.of("tiercache")
WRITE = "INSERT INTO tiercache_event (at, namespace, kind, body) VALUES (9e9, 'app', 'e', ?)"


def bus_on(path: Path, name: str = "app", timeout: float = 5.0) -> SqliteBus:
    """Return a bus with connections of its own, as another process would have."""
    place = place_of(Pool(f"sqlite:///{path}"), timeout, 2)
    assert isinstance(place, SqlitePlace)
    return SqliteBus(place, TABLES, name, timeout=timeout)


class TestSqliteBus(SharedBusContract):
    @pytest.fixture
    def medium(self, sqlite_path: Path) -> SharedMedium:
        """A file that does not exist yet."""
        return SharedMedium(bus_on, sqlite_path)


@contextlib.contextmanager
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that knows nothing of this library, in autocommit."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        yield connection
    finally:
        connection.close()


async def test_whoever_writes_stirs_the_listener(sqlite_path: Path) -> None:
    """Every commit of anybody may have been one of a row in the outbox."""
    async with joined(bus_on(sqlite_path)) as (_, recorder):
        with stranger(sqlite_path) as connection:
            for sql in ("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)"):
                await asyncio.sleep(0)
                recorder.log.clear()
                connection.execute(sql)
                await recorder.until(lambda: "stirred" in recorder.log)


async def test_a_rolled_back_event_leaves_no_hole(sqlite_path: Path) -> None:
    """The numbers stay dense: a transaction that is rolled back gives its numbers back."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        gaps = len(recorder.gaps)
        with stranger(sqlite_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(WRITE, (about("undone"),))
            connection.execute("ROLLBACK")
        await bus.publish([about("a")])
        await recorder.until(lambda: recorder.names == ["a"])
        assert len(recorder.gaps) == gaps


# What was missed


async def test_a_hole_is_a_gap(sqlite_path: Path) -> None:
    """An event that was removed before it was read is missed, and the next one is delivered."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        gaps = len(recorder.gaps)
        with stranger(sqlite_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(WRITE, (about("unread"),))
            connection.execute("DELETE FROM tiercache_event WHERE id > 0")
            connection.execute(WRITE, (about("a"),))
            connection.execute("COMMIT")
        await recorder.until(lambda: recorder.names == ["a"])
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["a", "b"])
        assert len(recorder.gaps) == gaps + 1
        assert recorder.log.index("gap", 1) < recorder.log.index("heard")


async def test_the_last_events_removed_are_a_gap(sqlite_path: Path) -> None:
    """Nothing comes after the hole: the number that was given last tells of it."""
    async with joined(bus_on(sqlite_path)) as (_, recorder):
        gaps = len(recorder.gaps)
        with stranger(sqlite_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(WRITE, (about("unread"),))
            connection.execute("DELETE FROM tiercache_event WHERE id > 0")
            connection.execute("COMMIT")
        await recorder.until(lambda: len(recorder.gaps) > gaps)


@pytest.mark.parametrize("sql", ["DELETE FROM tiercache_event", "DROP TABLE tiercache_event"])
async def test_an_emptied_table_is_a_gap(sqlite_path: Path, sql: str) -> None:
    """An administrator's clearing is noticed though nothing is sent; then events come again."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        with stranger(sqlite_path) as connection:
            await is_one_gap(bus, recorder, lambda: connection.execute(sql))


async def test_a_replaced_file_is_a_gap(sqlite_path: Path, tmp_path: Path) -> None:
    """A file that takes the place of the old one, an exact copy even, has other events."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        with stranger(sqlite_path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        gaps = len(recorder.gaps)
        shutil.copy(sqlite_path, tmp_path / "copy.db")
        (tmp_path / "copy.db").replace(sqlite_path)
        for end in ("-wal", "-shm"):
            Path(f"{sqlite_path}{end}").unlink(missing_ok=True)
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await recorder.until_connected()
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["b"])


async def test_a_deleted_file_is_a_gap(sqlite_path: Path) -> None:
    """The file is made anew, and events come through it."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: recorder.names == ["a"])
        gaps = len(recorder.gaps)
        for end in ("", "-wal", "-shm"):
            Path(f"{sqlite_path}{end}").unlink(missing_ok=True)
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await recorder.until_connected()
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["a", "b"])


async def test_contents_that_went_back_in_time_are_a_gap(sqlite_path: Path) -> None:
    """A backup that is written over the open file takes events back: their numbers come again."""
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        with stranger(sqlite_path) as connection, sqlite3.connect(":memory:") as backup:
            connection.backup(backup)
            await bus.publish([about("a")])
            await recorder.until(lambda: recorder.names == ["a"])
            gaps = len(recorder.gaps)
            backup.backup(connection)
            await recorder.until(lambda: len(recorder.gaps) > gaps)
        backup.close()
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["a", "b"])


# Removing


@pytest.mark.parametrize("old", [True, False])
async def test_old_events_are_removed_and_nobody_has_a_gap(
    sqlite_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """Events that are old, or too many, are removed by the readers."""
    monkeypatch.setattr(sqlite, "PRUNE_EVERY", 0.01)
    count = "SELECT count(*) FROM tiercache_event WHERE id > 0"
    async with joined(bus_on(sqlite_path)) as (bus, recorder):
        gaps = len(recorder.gaps)
        await bus.publish([about(str(n)) for n in range(50)])
        await recorder.until(lambda: len(recorder.names) == 50)
        monkeypatch.setattr(events, "KEPT", 1000 if old else 5)
        with stranger(sqlite_path) as connection:
            if old:
                connection.execute("UPDATE tiercache_event SET at = at - 3600 WHERE id > 0")
            async with asyncio.timeout(15):
                while connection.execute(count).fetchone()[0] > (0 if old else 5):
                    await asyncio.sleep(0.01)
        await bus.publish([about("after")])
        await recorder.until(lambda: recorder.names[-1:] == ["after"])
        assert len(recorder.gaps) == gaps


# Joining, failing, leaving


async def test_nobody_is_connected_before_the_own_probe_came_back(sqlite_path: Path) -> None:
    """A file that swallows what is written cannot carry events; when it stops that, it can."""
    async with joined(bus_on(sqlite_path)):
        pass
    with stranger(sqlite_path) as connection:
        connection.execute("CREATE TABLE tried (x)")
        connection.execute(
            "CREATE TRIGGER swallow BEFORE INSERT ON tiercache_event WHEN NEW.kind = 'p'"
            " BEGIN INSERT INTO tried VALUES (1); DELETE FROM tiercache_event WHERE id > 0;"
            " SELECT RAISE(IGNORE); END"
        )
        async with trying(bus_on(sqlite_path)) as recorder:
            async with asyncio.timeout(15):
                while connection.execute("SELECT count(*) FROM tried").fetchone()[0] < 2:
                    await asyncio.sleep(0.01)
            assert not recorder.is_connected
            connection.execute("DROP TRIGGER swallow")
            await recorder.until_connected()


async def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """The bus waits for it; what is published meanwhile is refused."""
    folder = tmp_path / "later"
    bus = bus_on(folder / "cache.db")
    async with trying(bus) as recorder:
        with pytest.raises(TierError, match="folder"):
            await bus.publish([about("a")])
        folder.mkdir()
        await recorder.until_connected()
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["b"])


async def test_a_writer_that_does_not_let_go(sqlite_path: Path) -> None:
    """While somebody else holds the right to write, publishing fails and listening goes on."""
    async with joined(bus_on(sqlite_path, timeout=0.1)) as (bus, recorder):
        with stranger(sqlite_path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(TierError) as caught:
                await bus.publish([about("a")])
            assert caught.value.unavailable
            connection.execute(WRITE, (about("b"),))
            connection.execute("COMMIT")
            await recorder.until(lambda: "b" in recorder.names)
        assert "disconnected" not in recorder.log


def test_a_loop_that_was_closed_ends_the_thread(sqlite_path: Path) -> None:
    """Nobody cancels `run`: the thread finds out by itself that nobody listens any more."""
    bus = bus_on(sqlite_path)
    loop = asyncio.new_event_loop()

    async def start() -> asyncio.Task[None]:
        recorder = Recorder()
        task = asyncio.create_task(bus.run(recorder))
        await recorder.until_connected()
        return task

    task = loop.run_until_complete(start())
    [thread] = [each for each in threading.enumerate() if each.name == "tiercache-bus"]
    loop.close()
    thread.join(10)
    assert not thread.is_alive()
    task._log_destroy_pending = False  # what this test is about: nobody ended it
    task.get_coro().close()
    asyncio.run(bus.aclose())


# Riding


@pytest.mark.parametrize("blocking", [False, True])
async def test_events_ride_on_the_deletions_of_the_tier(sqlite_path: Path, blocking: bool) -> None:
    """The tier publishes in the transaction that deletes: both or neither, from any caller."""
    tier = DatabaseTier(f"sqlite:///{sqlite_path}")
    tier.bind("app")
    assert isinstance(tier.place, SqlitePlace)
    bus = SqliteBus(tier.place, tier.tables, "app", timeout=5)
    assert not bus.rides_on(tier)
    bus.ride(tier)
    assert bus.rides_on(tier)

    async def invalidate(keys: list[str], body: bytes) -> None:
        if blocking:
            assert tier.blocking is not None
            tier.blocking.invalidate(keys, [], [body])
        else:
            await tier.invalidate(keys, [], [body])

    await load(tier, "a", b"v")
    await invalidate(["a"], about("a"))  # before anybody has made the table
    async with listening(bus) as recorder:
        await load(tier, "a", b"v")
        await invalidate(["a"], about("b"))
        assert await tier.read([Ask("a", None)]) == [None]
        await recorder.until(lambda: recorder.names == ["b"])
        await load(tier, "a", b"v")
        with stranger(sqlite_path) as connection:
            connection.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON tiercache_event"
                " BEGIN SELECT RAISE(ABORT, 'no more'); END"
            )
        with pytest.raises(TierError, match="no more"):
            await invalidate(["a"], about("c"))
        assert await tier.read([Ask("a", None)]) != [None]
    await tier.aclose()
