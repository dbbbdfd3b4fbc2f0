"""Behaviours 36 and 37, and what else is SQLite's own."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool, Transaction, TransactionError
from poolkit.drivers.sqlite import SQLiteOptions, SQLiteSync

MakePool = Callable[..., Pool]


@pytest.fixture
async def table(sqlite_dsn: str, make_pool: MakePool) -> Pool:
    """A pool on a file with a table t (x integer primary key)."""
    pool = make_pool(sqlite_dsn, max_size=5)
    await pool.execute("CREATE TABLE t (x INTEGER PRIMARY KEY)")
    return pool


async def test_b36_nobody_is_locked_out(table: Pool) -> None:
    """Many writers, transactions and readers at once: no "database is locked", nothing lost."""

    async def transact(number: int) -> None:
        async with table.transaction() as tx:
            count = await tx.fetchval("SELECT count(*) FROM t")
            await asyncio.sleep(0)
            await tx.execute("INSERT INTO t VALUES ($1)", number)
            assert await tx.fetchval("SELECT count(*) FROM t") == count + 1

    async def write(number: int) -> None:
        await table.execute("INSERT INTO t VALUES ($1)", number)

    async def write_on_a_connection(number: int) -> None:
        async with table.acquire() as connection:
            await connection.execute("INSERT INTO t VALUES ($1)", number)

    async def look(number: int) -> None:
        await table.fetchval("SELECT count(*) FROM t")

    kinds = (transact, write, write_on_a_connection, look)
    await asyncio.gather(*(kinds[number % 4](number) for number in range(200)))
    assert await table.fetchval("SELECT count(*) FROM t") == 150


async def test_b36_two_pools_on_one_file(table: Pool, sqlite_dsn: str, make_pool: MakePool) -> None:
    """Pools of one process take turns, too, and so does the blocking face in other threads."""
    other = make_pool(sqlite_dsn)

    async def transact(pool: Pool, number: int) -> None:
        async with pool.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES ($1)", number)

    with SQLiteSync(sqlite_dsn.removeprefix("sqlite:///")) as blocking:

        def block() -> None:
            for number in range(1000, 1020):
                with blocking.transaction() as tx:
                    tx.execute("INSERT INTO t VALUES ($1)", number)

        await asyncio.gather(
            *(transact((table, other)[number % 2], number) for number in range(40)),
            *(other.execute("INSERT INTO t VALUES ($1)", 100 + number) for number in range(40)),
            asyncio.to_thread(block),
        )
    assert await table.fetchval("SELECT count(*) FROM t") == 100


async def test_b36_readers_go_on_beside_a_writer(table: Pool) -> None:
    """While a transaction writes, others read what was committed before it."""
    await table.execute("INSERT INTO t VALUES (1)")
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (2)")
        assert await table.fetchval("SELECT count(*) FROM t") == 1
        async with table.acquire() as connection:
            assert await connection.fetchval("SELECT count(*) FROM t") == 1
    assert await table.fetchval("SELECT count(*) FROM t") == 2


async def test_b36_writers_queue_in_order(table: Pool) -> None:
    """Who asked first writes first."""
    order: list[int] = []

    async def transact(number: int) -> None:
        async with table.transaction() as tx:
            order.append(number)
            await tx.execute("INSERT INTO t VALUES ($1)", number)

    await asyncio.gather(*(transact(number) for number in range(30)))
    assert order == list(range(30))


async def test_b36_a_reader_cannot_write(table: Pool) -> None:
    """A connection that did not pass the gate is query_only."""
    async with table.acquire() as connection:
        assert await connection.fetchval("PRAGMA query_only") == 1
        await connection.execute("INSERT INTO t VALUES (1)")
        assert await connection.fetchval("PRAGMA query_only") == 1
        async with connection.transaction():
            assert await connection.fetchval("PRAGMA query_only") == 0


async def test_b36_what_writes_unseen_is_run_as_a_write(table: Pool) -> None:
    """A statement that reads by its looks and writes by its effect succeeds all the same."""
    async with table.acquire() as connection:
        await connection.execute("PRAGMA auto_vacuum = INCREMENTAL; VACUUM")
        await connection.execute("CREATE TABLE large (x)")
        for free in (connection.fetch, table.fetch):
            await connection.executemany("INSERT INTO large VALUES ($1)", [("x" * 2000,)] * 50)
            await connection.execute("DELETE FROM large")
            before = await connection.fetchval("PRAGMA freelist_count")
            await free("PRAGMA incremental_vacuum")
            assert await connection.fetchval("PRAGMA freelist_count") < before
            assert await connection.fetchval("PRAGMA query_only") == 1


async def test_b36_waiting_for_oneself_is_refused(table: Pool) -> None:
    """Writing beside one's own write transaction is told at once: there is one writer."""
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(TransactionError, match="one writer"):
            await table.execute("INSERT INTO t VALUES (2)")
        with pytest.raises(TransactionError, match="one writer"):
            async with table.transaction(independent=True):
                pass
        async with table.transaction(independent=True, readonly=True) as reader:
            assert await reader.fetchval("SELECT count(*) FROM t") == 0
    assert await table.fetchval("SELECT count(*) FROM t") == 1


_OTHER_PROCESS = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for _ in range(100):
    con.execute("BEGIN IMMEDIATE")
    con.execute("INSERT INTO t VALUES (NULL)")
    con.execute("COMMIT")
print("done")
"""


async def test_b36_beside_another_process(table: Pool, sqlite_path: Path) -> None:
    """Between processes SQLite's lock decides, and the wait for it is patient."""
    process = await asyncio.to_thread(
        lambda: subprocess.Popen([sys.executable, "-c", _OTHER_PROCESS, str(sqlite_path)])
    )
    async with asyncio.timeout(40):
        for _ in range(50):
            async with table.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (NULL)")
            await table.execute("INSERT INTO t VALUES (NULL)")
        assert await asyncio.to_thread(process.wait) == 0
    assert await table.fetchval("SELECT count(*) FROM t") == 200


async def test_b36_busy_is_bounded_and_may_be_run_again(
    sqlite_path: Path, sqlite_dsn: str, make_pool: MakePool
) -> None:
    """Another process that does not let go is an error in time; run() tries again."""
    pool = make_pool(sqlite_dsn, busy_timeout=0.02)
    await pool.execute("CREATE TABLE t (x)")
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        async with pool.transaction():
            pass
    attempts: list[int] = []

    async def write(tx: Transaction) -> None:
        attempts.append(1)
        await tx.execute("INSERT INTO t VALUES (1)")

    task = asyncio.create_task(pool.run(write, retries=50))
    await asyncio.sleep(0.05)
    other.execute("ROLLBACK")
    other.close()
    await task
    assert attempts == [1]
    assert await pool.fetchval("SELECT count(*) FROM t") == 1


async def test_b37_options_and_their_defaults(sqlite_dsn: str, make_pool: MakePool) -> None:
    """The pragmas are set on every connection, by default and by choice."""
    pool = make_pool(sqlite_dsn)
    async with pool.acquire() as connection:
        values = {
            name: await connection.fetchval(f"PRAGMA {name}")
            for name in ("journal_mode", "synchronous", "temp_store", "cache_size", "mmap_size")
        }
    defaults = SQLiteOptions()
    assert values == {
        "journal_mode": "wal",
        "synchronous": 1,
        "temp_store": 2,
        "cache_size": -defaults.cache_size // 1024,
        "mmap_size": defaults.mmap_size,
    }
    chosen = make_pool(
        f"{sqlite_dsn}?synchronous=FULL", foreign_keys=True, pragmas={"secure_delete": 1}
    )
    async with chosen.acquire() as connection:
        assert await connection.fetchval("PRAGMA synchronous") == 2
        assert await connection.fetchval("PRAGMA foreign_keys") == 1
        assert await connection.fetchval("PRAGMA secure_delete") == 1


async def test_b37_many_results_wake_the_loop_once(table: Pool) -> None:
    """Statements that are asked together cross to the thread and back together."""
    await table.executemany("INSERT INTO t VALUES ($1)", [(number,) for number in range(100)])
    await table.fetchval("SELECT 1")
    loop = asyncio.get_running_loop()
    wakes = 0
    original = loop.call_soon_threadsafe

    def count(*args: Any, **kwargs: Any) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return original(*args, **kwargs)

    loop.call_soon_threadsafe = count  # type: ignore[method-assign]
    try:
        values = await asyncio.gather(
            *(table.fetchval("SELECT x FROM t WHERE x = $1", number) for number in range(100))
        )
    finally:
        del loop.call_soon_threadsafe  # type: ignore[method-assign]
    assert values == list(range(100))
    assert wakes < 50


async def test_b37_a_slow_statement_does_not_hold_up_the_others(table: Pool) -> None:
    """While one statement takes long, a second thread helps the others."""
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    )
    slow = [asyncio.create_task(table.fetchval(endless)) for _ in range(2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await table.fetchval("SELECT 7") == 7
        async with table.acquire() as connection:
            assert await connection.fetchval("SELECT 8") == 8
    for task in slow:
        task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait(slow)


def test_b37_threads_end_with_the_process(sqlite_path: Path) -> None:
    """A program that forgets to close its pool ends all the same."""
    program = f"""
import asyncio
from poolkit import Pool
pool = Pool("sqlite:///{sqlite_path}")
async def main():
    await pool.fetchval("SELECT 1")
    await pool.execute("CREATE TABLE t (x)")
asyncio.run(main())
print("over")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "over" in done.stdout


# --- group commit


async def test_group_commit_is_one_transaction_for_many(table: Pool, sqlite_path: Path) -> None:
    """Concurrent short writes commit together, and each is there when its call returns."""
    watcher = sqlite3.connect(sqlite_path)

    async def write(number: int) -> None:
        await table.execute("INSERT INTO t VALUES ($1)", number)
        found = watcher.execute("SELECT count(*) FROM t WHERE x = ?", (number,)).fetchone()
        assert found == (1,)

    wal = Path(f"{sqlite_path}-wal")
    before = wal.stat().st_size
    await asyncio.gather(*(write(number) for number in range(100)))
    watcher.close()
    frames = (wal.stat().st_size - before) / (4096 + 24)
    assert frames < 50  # alone, each would have written at least one page


async def test_group_commit_fails_one_alone(table: Pool) -> None:
    """A statement that fails takes nobody with it, and leaves nothing behind."""
    await table.execute("INSERT INTO t VALUES (1)")
    results = await asyncio.gather(
        *(table.execute("INSERT INTO t VALUES ($1)", number) for number in (0, 1, 2, 1, 3)),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds == [int, sqlite3.IntegrityError, int, sqlite3.IntegrityError, int]
    assert await table.fetchval("SELECT count(*) FROM t") == 4


async def test_group_commit_survives_a_rollback_of_all(table: Pool) -> None:
    """Where one statement rolls the whole transaction back, the others are run again."""
    results = await asyncio.gather(
        table.execute("INSERT INTO t VALUES (1)"),
        table.execute("INSERT OR ROLLBACK INTO t VALUES (1)"),
        table.execute("INSERT INTO t VALUES (2)"),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [int, sqlite3.IntegrityError, int]
    assert await table.fetchval("SELECT count(*) FROM t") == 2


async def test_group_commit_drops_the_cancelled(table: Pool) -> None:
    """A write that is cancelled before its turn is not made."""
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        writes = [
            asyncio.create_task(table.execute("INSERT INTO t VALUES ($1)", number))
            for number in (2, 3)
        ]
        await asyncio.sleep(0)
        writes[0].cancel()
    await asyncio.wait(writes)
    assert await table.fetchval("SELECT count(*) FROM t") == 2


# --- in memory, blocking, upkeep


async def test_in_memory_is_one_database(make_pool: MakePool) -> None:
    """All connections of a pool, its siblings and its blocking face see the same; others do not."""
    pool = make_pool("sqlite://", max_size=3)
    await pool.execute("CREATE TABLE t (x)")
    async with pool.acquire() as one, pool.acquire() as other:
        await one.execute("INSERT INTO t VALUES (1)")
        assert await other.fetchval("SELECT count(*) FROM t") == 1
    blocking: SQLiteSync = pool.driver.sync()  # type: ignore[attr-defined]
    assert blocking.execute("INSERT INTO t VALUES ($1)", 2) == 1
    blocking.close()
    async with pool.sibling(max_size=1) as sibling:
        assert await sibling.fetchval("SELECT count(*) FROM t") == 2
    stranger = make_pool("sqlite://")
    assert await stranger.fetchval("SELECT count(*) FROM sqlite_master") == 0


def test_in_memory_leaves_no_file() -> None:
    """The folder behind an in-memory database goes with its last user."""

    async def main() -> Path:
        async with Pool("sqlite://") as pool:
            await pool.execute("CREATE TABLE t (x)")
            return Path(pool.driver.path).parent  # type: ignore[attr-defined]

    folder = asyncio.run(main())
    import gc

    gc.collect()
    assert not folder.exists()


async def test_the_blocking_face_from_many_threads(sqlite_path: Path) -> None:
    """Threads share one face; transactions commit and roll back; rows are those of the pool."""
    with SQLiteSync(sqlite_path) as blocking:
        blocking.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT)")

        def work(base: int) -> None:
            for number in range(base, base + 50):
                blocking.execute("INSERT INTO t VALUES ($1, $2)", number, "a")
                row = blocking.fetchrow("SELECT y, x FROM t WHERE x = $1", number)
                assert row is not None
                assert (row["x"], row[0]) == (number, "a")

        await asyncio.gather(*(asyncio.to_thread(work, base) for base in range(0, 400, 100)))
        with pytest.raises(KeyError), blocking.transaction() as tx:
            tx.execute("DELETE FROM t")
            raise KeyError
        assert blocking.fetchval("SELECT count(*) FROM t") == 200
        blocking.executemany("UPDATE t SET y = $2 WHERE x = $1", [(1, "b"), (2, "c")])
        assert blocking.fetchval("SELECT y FROM t WHERE x = 2") == "c"
        with pytest.raises(sqlite3.OperationalError), blocking.transaction(readonly=True) as tx:
            tx.execute("DELETE FROM t")


async def test_the_blocking_face_does_not_deadlock_the_loop(table: Pool, sqlite_dsn: str) -> None:
    """In the loop's own thread, waiting for a transaction of that loop is refused."""
    with SQLiteSync(sqlite_dsn.removeprefix("sqlite:///")) as blocking:
        async with table.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(TransactionError, match="wait for ever"):
                blocking.execute("INSERT INTO t VALUES (2)")
        assert blocking.execute("INSERT INTO t VALUES (2)") == 1


async def test_backup_and_optimize(table: Pool, tmp_path: Path) -> None:
    """A backup is a whole database of its own; optimize does no harm."""
    await table.executemany("INSERT INTO t VALUES ($1)", [(number,) for number in range(10)])
    await table.optimize()
    await table.backup(tmp_path / "copy.db")
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("SELECT count(*) FROM t").fetchone() == (10,)
    copy.close()


async def test_scripts_and_parameters(table: Pool) -> None:
    """Several statements at once, triggers among them; $1 in any order, and not in literals."""
    await table.execute(
        """
        CREATE TABLE log (x);
        CREATE TRIGGER note AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.x); END;
        INSERT INTO t VALUES (5);
        """
    )
    assert await table.fetchval("SELECT x FROM log") == 5
    row = await table.fetchrow("SELECT $2 AS b, $1 AS a, '$1' AS c, $1 AS again -- $3", 1, 2)
    assert row is not None
    assert dict(row) == {"b": 2, "a": 1, "c": "$1", "again": 1}


async def test_executemany_is_all_or_nothing(table: Pool) -> None:
    """A row that fails takes the rows before it along, alone and in a transaction."""
    with pytest.raises(sqlite3.IntegrityError):
        await table.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,), (1,)])
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (9)")
        with pytest.raises(sqlite3.IntegrityError):
            await tx.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,), (1,)])
    assert await table.fetchval("SELECT group_concat(x) FROM t") == "9"


async def test_threads_are_few(table: Pool) -> None:
    """Quick work of many connections is done by one thread."""
    before = {thread for thread in threading.enumerate() if "poolkit" in thread.name}
    await asyncio.gather(*(table.fetchval("SELECT 1") for _ in range(200)))
    after = {thread for thread in threading.enumerate() if "poolkit" in thread.name}
    assert len(after) <= max(len(before), 1) + 2
