"""`DatabaseTier` on SQLite: threads, loops, processes, and every way a file can fail."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from poolkit import Pool
from tests.contracts.tier import LEASE, TTL, load, payload_of
from tests.tiercache.tiers.database_stories import failing, nothing_stale
from tiercache.errors import PolicyError, TierError
from tiercache.tiers.base import Ask, Blocking, Fill
from tiercache.tiers.database import DatabaseTier


def tier_at(path: Path | str, *, timeout: float = 1.0, **options: object) -> DatabaseTier:
    """Make a tier on a file, bound to the cache ``app``."""
    tier = DatabaseTier(f"sqlite:///{path}", timeout=timeout, **options)  # type: ignore[arg-type]
    tier.bind("app")
    return tier


def blocking_of(tier: DatabaseTier) -> Blocking:
    """Return the blocking face, which must be there."""
    assert tier.blocking is not None
    return tier.blocking


@pytest_asyncio.fixture
async def tier(sqlite_path: Path) -> AsyncIterator[DatabaseTier]:
    """A tier on a new file."""
    tier = tier_at(sqlite_path)
    yield tier
    await tier.aclose()


# Threads, loops, processes


async def test_threads_and_the_loop_see_one_database(tier: DatabaseTier) -> None:
    """What is written on a loop is read in threads and the other way round, at once."""
    blocking = blocking_of(tier)
    await load(tier, "a", b"loop", ("t",))
    assert [stored and stored.payload for stored in blocking.read([Ask("a", ("t",))])] == [b"loop"]
    blocking.invalidate([], ["t"])
    assert await payload_of(tier, "a", ("t",)) is None


async def test_a_database_in_memory_is_one(sqlite_path: Path) -> None:
    """An in-memory database is the same on every loop and in every thread."""
    tier = DatabaseTier("sqlite://")
    tier.bind("app")
    await load(tier, "a", b"v", ("t",))
    [stored] = blocking_of(tier).read([Ask("a", ("t",))])
    assert stored is not None
    assert await asyncio.to_thread(lambda: asyncio.run(payload_of(tier, "a", ("t",)))) == b"v"
    await tier.aclose()


def test_many_threads_without_a_loop(sqlite_path: Path) -> None:
    """Eight threads read, lease, fill and invalidate at once, and each finds its own."""
    tier = tier_at(sqlite_path, timeout=20.0)
    blocking = blocking_of(tier)

    def work(number: int) -> bool:
        for turn in range(20):
            key = f"{number}:{turn}"
            [basis] = blocking.lease([Ask(key, ("t",))], LEASE)
            assert blocking.fill([Fill(basis, key.encode(), TTL)]) == [True]
            [stored] = blocking.read([Ask(key, ("t",))])
            assert stored is not None
            assert stored.payload == key.encode()
            blocking.invalidate([key], [])
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    asyncio.run(tier.aclose())


async def test_a_caller_that_blocks_its_loop_waits_for_its_writes(tier: DatabaseTier) -> None:
    """Blocking operations in the loop's thread get through while the loop's own are under way."""
    blocking = blocking_of(tier)
    writing = [asyncio.ensure_future(load(tier, f"k{n}", b"v", ("t",))) for n in range(20)]
    for n in range(20):
        await asyncio.sleep(0)
        blocking.lease([Ask(f"b{n}", ("t",))], LEASE)
    assert all(await asyncio.gather(*writing))


async def test_a_write_transaction_of_the_blocked_loop_is_no_deadlock(sqlite_path: Path) -> None:
    """While a task of this loop has the only writer, a blocking write in its thread is refused."""
    async with Pool(f"sqlite:///{sqlite_path}") as pool:
        tier = DatabaseTier(pool)
        assert tier.pool is pool
        tier.bind("app")
        await tier.open()
        async with pool.transaction() as transaction:
            await transaction.execute("CREATE TABLE mine (x)")
            blocking = blocking_of(tier)
            assert blocking.read([Ask("a", ())]) == [None]
            with pytest.raises(TierError, match="lease") as caught:
                blocking.lease([Ask("a", ())], LEASE)
            assert not caught.value.unavailable
        assert len(blocking.lease([Ask("a", ())], LEASE)) == 1
        await tier.aclose()


async def test_a_child_process_has_its_own_connections(tier: DatabaseTier) -> None:
    """After a fork both processes go on, without harm to each other's locks and log."""
    await load(tier, "a", b"v", ("t",))
    blocking = blocking_of(tier)
    blocking.read([Ask("a", ("t",))])
    child = os.fork()
    if child == 0:
        try:
            [stored] = blocking.read([Ask("a", ("t",))])
            [basis] = blocking.lease([Ask("b", ())], LEASE)
            blocking.fill([Fill(basis, b"child", None)])
            os._exit(0 if stored is not None and stored.payload == b"v" else 1)
        except BaseException:
            os._exit(2)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await payload_of(tier, "b") == b"child"
    assert await load(tier, "c", b"parent")


def test_processes_that_start_together(sqlite_path: Path) -> None:
    """Several processes make the schema of one new file at once and read each other's entries."""
    program = """
import sys
from tiercache.tiers.base import Ask, Fill
from tiercache.tiers.database import DatabaseTier
tier = DatabaseTier("sqlite:///" + sys.argv[1], timeout=20)
tier.bind("app")
sys.stdin.readline()
[basis] = tier.blocking.lease([Ask(sys.argv[2], ("t",))], 30)
tier.blocking.fill([Fill(basis, b"v", None)])
"""
    command = [sys.executable, "-c", program, str(sqlite_path)]
    processes = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, text=True) for n in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=40)
        assert process.returncode == 0
    tier = tier_at(sqlite_path)
    found = blocking_of(tier).read([Ask(str(n), ("t",)) for n in range(4)])
    assert [stored and stored.payload for stored in found] == [b"v"] * 4
    asyncio.run(tier.aclose())


async def test_it_follows_no_change_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means the folder in which the tier was made."""
    monkeypatch.chdir(tmp_path)
    tier = DatabaseTier("sqlite:///cache.db")
    tier.bind("app")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await load(tier, "a", b"v")
    await tier.aclose()
    assert (tmp_path / "cache.db").exists()


async def test_no_read_is_older_than_the_last_invalidation(sqlite_path: Path) -> None:
    """Loads, refreshes, invalidations and clears at random: what is read is never out of date."""
    tiers = [tier_at(sqlite_path, timeout=20.0) for _ in range(3)]
    assert await nothing_stale(tiers) > 0
    for tier in tiers:
        await tier.aclose()


async def test_readers_do_not_wait_behind_writers(sqlite_path: Path) -> None:
    """Writers wait for a transaction; what is read is read meanwhile, maybe by that transaction."""
    tier = tier_at(sqlite_path, timeout=30)
    assert await load(tier, "a", b"1")
    with sqlite3.connect(sqlite_path, isolation_level=None) as transaction:
        transaction.execute("BEGIN IMMEDIATE")
        writers = [asyncio.create_task(tier.lease([Ask(str(n), ())], LEASE)) for n in range(8)]
        await asyncio.sleep(0)
        assert await payload_of(tier, "a", ()) == b"1"
        assert not any(writer.done() for writer in writers)
        transaction.execute("ROLLBACK")
        assert len(await asyncio.gather(*writers)) == 8
    transaction.close()
    await tier.aclose()


# What lasts


async def test_invalidations_wait_for_the_disk_and_fills_do_not(
    tier: DatabaseTier, sqlite_path: Path
) -> None:
    """A loss of power may take a fill away, but must not bring back what was invalidated."""
    place = tier.place
    assert place is not None
    levels = {
        name: getattr(place, name).get().fetchval("PRAGMA synchronous")
        for name in ("_usual", "_durable")
    }
    assert levels == {"_usual": 1, "_durable": 2}


# Faults


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be somebody for whom permissions count, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_file_that_cannot_be_written(folder: Path) -> None:
    """Reading goes on; a write says what has to become writable."""
    path = folder / "cache.db"
    tier = tier_at(path)
    await load(tier, "a", b"v")
    await tier.aclose()
    path.chmod(0o444)
    folder.chmod(0o777)
    with unprivileged():
        assert await payload_of(tier, "a") == b"v"
        with failing("lease", "Make the file and its folder writable", unavailable=False):
            await tier.lease([Ask("b", ())], LEASE)
        with failing("invalidate", "Make the file and its folder writable", unavailable=False):
            blocking_of(tier).invalidate(["a"], [])
        await tier.aclose()


async def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    """A file cannot be made there, and the error says so."""
    folder.chmod(0o555)
    with unprivileged():
        tier = tier_at(folder / "cache.db")
        with failing("open", "this process may write in it", unavailable=True):
            await tier.open()
        await tier.aclose()


async def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """The file cannot be opened; once the folder is there, it can."""
    path = tmp_path / "later" / "cache.db"
    tier = tier_at(path)
    with failing("read", "Check that the folder exists", unavailable=True):
        await tier.read([Ask("a", ())])
    with failing("read", "Check that the folder exists", unavailable=True):
        blocking_of(tier).read([Ask("a", ())])
    path.parent.mkdir()
    assert await load(tier, "a", b"v")
    await tier.aclose()


async def test_a_file_that_is_no_database(sqlite_path: Path) -> None:
    """Somebody's notes are neither read nor overwritten."""
    sqlite_path.write_text("dear diary, " * 1000)
    tier = tier_at(sqlite_path)
    with failing("lease", "Name another file", unavailable=True):
        await load(tier, "a", b"v")
    await tier.aclose()
    assert sqlite_path.read_text().startswith("dear diary")


async def test_a_full_database(sqlite_path: Path) -> None:
    """A value that has no room is refused; reading and invalidating go on."""
    pool = Pool(f"sqlite:///{sqlite_path}", pragmas={"max_page_count": 30})
    tier = DatabaseTier(pool)
    tier.bind("app")
    await load(tier, "a", b"v", ("t",))
    with failing("fill", "The disk is full", unavailable=False):
        await load(tier, "b", b"x" * 200_000)
    assert await payload_of(tier, "a", ("t",)) == b"v"
    await tier.invalidate(["a"], ["t"])
    assert await payload_of(tier, "a", ("t",)) is None
    await tier.aclose()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
async def test_a_full_disk(tmp_path: Path) -> None:
    """On a real file system without room, writes are refused and reading goes on."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", mount], check=False)
    if made.returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        tier = tier_at(mount / "cache.db")
        await load(tier, "a", b"v")
        with failing("fill", "The disk is full", unavailable=False):
            await load(tier, "b", b"x" * 1_000_000)
        assert await payload_of(tier, "a") == b"v"
        await tier.aclose()
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


async def test_a_database_that_another_process_has_locked(sqlite_path: Path) -> None:
    """Reading goes on; a write gives up within the timeout, and works when the lock is gone."""
    tier = tier_at(sqlite_path, timeout=0.05)
    await load(tier, "a", b"v")
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await payload_of(tier, "a") == b"v"
    with failing("lease", "Another process holds the write lock", unavailable=True):
        await tier.lease([Ask("b", ())], LEASE)
    with failing("invalidate", "Another process holds the write lock", unavailable=True):
        blocking_of(tier).invalidate(["a"], [])
    other.execute("ROLLBACK")
    other.close()
    assert await load(tier, "b", b"v")
    await tier.aclose()


async def test_an_operation_that_was_given_up_leaves_nothing(sqlite_path: Path) -> None:
    """What nobody waits for any more is not written later, when the lock is gone."""
    tier = tier_at(sqlite_path, timeout=30.0)
    [basis] = await tier.lease([Ask("a", ("t",))], LEASE)
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await tier.fill([Fill(basis, b"late", None)])
    other.execute("ROLLBACK")
    other.close()
    await load(tier, "b", b"v")  # behind the other, in the same queue
    assert await payload_of(tier, "a", ("t",)) is None
    await tier.aclose()


async def test_tables_of_another_version(sqlite_path: Path) -> None:
    """What another tiercache has made is not touched, and the ways out are named."""
    tier = tier_at(sqlite_path)
    await load(tier, "a", b"v")
    await tier.aclose()
    connection = sqlite3.connect(sqlite_path, isolation_level=None)
    connection.execute("UPDATE tiercache_meta SET value = '7'")
    with pytest.raises(TierError, match=r"version 7.*drop tiercache_entry.*prefix=") as caught:
        await tier.read([Ask("a", ())])
    assert not caught.value.unavailable
    with pytest.raises(TierError, match="version 7"):
        blocking_of(tier).read([Ask("a", ())])
    other = tier_at(sqlite_path, prefix="other")
    assert await load(other, "a", b"v")
    connection.close()
    await other.aclose()
    await tier.aclose()


async def test_tables_that_were_dropped_are_made_again(
    tier: DatabaseTier, sqlite_path: Path
) -> None:
    """An administrator who drops the tables has emptied the cache, on the loop and in threads."""
    connection = sqlite3.connect(sqlite_path, isolation_level=None)
    for use in (payload_of, in_thread):
        await load(tier, "a", b"v", ("t",))
        for table in ("entry", "tag", "meta"):
            connection.execute(f"DROP TABLE tiercache_{table}")
        assert await use(tier, "a", ("t",)) is None
    connection.close()


async def test_a_file_that_is_deleted_while_it_is_open(
    tier: DatabaseTier, sqlite_path: Path
) -> None:
    """Whoever has the old file open goes on with the new one, as everybody else does."""
    await load(tier, "a", b"old")
    [basis] = await tier.lease([Ask("b", ())], LEASE)
    for path in sqlite_path.parent.glob(f"{sqlite_path.name}*"):
        path.unlink()
    peer = tier_at(sqlite_path)
    await load(peer, "c", b"new")
    assert await payload_of(tier, "a") is None
    assert await payload_of(tier, "c") == b"new"
    assert await tier.fill([Fill(basis, b"v", TTL)]) == [False]
    await tier.invalidate(["c"], [])
    assert await payload_of(peer, "c") is None
    await peer.aclose()


async def in_thread(tier: DatabaseTier, key: str, tags: tuple[str, ...]) -> object:
    """Read without a loop."""
    return blocking_of(tier).read([Ask(key, tags)])[0]


# Settings


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite:/cache.db", "sqlite:///cache.db"),
        ("sqlite://cache.db", "sqlite:///cache.db"),
        ("postgres//user:secret@host/app", "postgresql://user@host/database"),
        ("mysql://user:secret@host/app", "'mysql' is not known"),
        ("postgresql://user:secret@host/app?sslmod=require", "did you mean 'sslmode'"),
        ("sqlite:///cache.db?synchronos=FULL", "did you mean 'synchronous'"),
        ("sqlite:///cache.db?synchronous=ALWAYS", "synchronous='ALWAYS'"),
    ],
)
def test_a_url_that_cannot_be_meant(url: str, hint: str) -> None:
    """The error names the URL without its password, what is wrong, and how it is written."""
    with pytest.raises(PolicyError, match="is not the URL of a database tier") as caught:
        DatabaseTier(url)
    assert hint in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": "1"},
        {"timeout": True},
        {"max_size": 0},
        {"max_size": 1.5},
        {"prefix": "a b"},
        {"prefix": "app.tiercache"},
        {"unlogged": True},
    ],
)
def test_settings_that_cannot_be_meant(options: dict[str, object]) -> None:
    """They are refused with the field and the value, SQLite's limits included."""
    [(name, value)] = options.items()
    with pytest.raises(PolicyError, match=f"{name}=") as caught:
        DatabaseTier("sqlite://", **options)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


def test_what_is_no_database() -> None:
    """Anything but a pool or a URL is refused."""
    with pytest.raises(PolicyError, match=r"expected a poolkit\.Pool or a URL"):
        DatabaseTier(42)  # type: ignore[arg-type]


def test_a_database_that_is_not_known() -> None:
    """The schema can be had for the two databases there are."""
    with pytest.raises(PolicyError, match="'postgresql' or 'sqlite'"):
        DatabaseTier.schema("mysql")  # type: ignore[arg-type]


async def test_use_before_it_is_bound_is_a_mistake(sqlite_path: Path) -> None:
    """Without a namespace there is nothing to read."""
    with pytest.raises(RuntimeError, match="bind"):
        await DatabaseTier(f"sqlite:///{sqlite_path}").read([Ask("a", ())])


async def test_the_schema_can_be_made_beforehand(sqlite_path: Path) -> None:
    """What `schema` returns is all that the tier wants to find."""
    connection = sqlite3.connect(sqlite_path)
    connection.executescript(DatabaseTier.schema("sqlite", prefix="mine"))
    before = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    tier = tier_at(sqlite_path, prefix="mine")
    assert await load(tier, "a", b"v", ("t",))
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == before
    connection.close()
    await tier.aclose()


# Events


async def test_events_ride_with_the_deletions(tier: DatabaseTier, sqlite_path: Path) -> None:
    """Deletions and what a bus writes for them are done together or not at all."""
    connection = sqlite3.connect(sqlite_path, isolation_level=None)
    connection.execute("CREATE TABLE event (body BLOB NOT NULL)")
    tier.announce(lambda events: [("INSERT INTO event VALUES ($1)", (body,)) for body in events])
    await load(tier, "a", b"v")
    await tier.invalidate(["a"], [], [b"one"])
    await load(tier, "a", b"v")
    blocking_of(tier).clear([b"two"])
    assert await payload_of(tier, "a") is None
    assert connection.execute("SELECT body FROM event").fetchall() == [(b"one",), (b"two",)]
    await load(tier, "a", b"v")
    tier.announce(lambda events: [("INSERT INTO event VALUES (NULL)", ())])
    with failing("invalidate", "NOT NULL constraint", unavailable=False):
        await tier.invalidate(["a"], [], [b"three"])
    assert await payload_of(tier, "a") == b"v"
    connection.close()


async def test_events_without_a_bus_are_a_mistake(tier: DatabaseTier) -> None:
    """A tier that nobody announces through says so instead of losing them."""
    with pytest.raises(RuntimeError, match="no bus"):
        await tier.invalidate(["a"], [], [b"event"])
