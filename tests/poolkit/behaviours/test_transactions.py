"""Behaviours 28 to 35: transactions that tell the truth."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from poolkit import (
    CommitRolledBack,
    CommitUnknown,
    ConnectionLost,
    Pool,
    Transaction,
    TransactionError,
    current_transaction,
)
from poolkit.driver import Fault
from poolkit.testing import FaultProxy, StubDriver, VirtualClock, run_virtual

MakePool = Callable[..., Pool]


def _through(dsn: str, proxy: FaultProxy) -> str:
    """Return the URL of the same database behind the proxy."""
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{dsn.rpartition('/')[2]}"


def _address(dsn: str) -> tuple[str, int]:
    host, _, port = dsn.rpartition("/")[0].rpartition("@")[2].partition(":")
    return host, int(port)


@pytest.fixture
async def table(dsn: str, make_pool: MakePool) -> Pool:
    """A pool with a table t (x int primary key)."""
    pool = make_pool(dsn, max_size=3)
    await pool.execute("CREATE TABLE t (x int PRIMARY KEY)")
    return pool


async def test_b28_a_swallowed_error_does_not_commit(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """COMMIT that the server answers with ROLLBACK raises, and the rollback hooks run."""
    pool = make_pool(postgres_dsn)
    await pool.execute("CREATE TABLE t (x int PRIMARY KEY)")
    ran: list[str] = []
    with pytest.raises(CommitRolledBack, match="savepoint"):
        async with pool.transaction() as tx:
            tx.on_commit(lambda: ran.append("commit"))
            tx.on_rollback(lambda: ran.append("rollback"))
            await tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(asyncpg.UniqueViolationError):
                await tx.execute("INSERT INTO t VALUES (1)")
    assert ran == ["rollback"]
    assert await pool.fetchval("SELECT count(*) FROM t") == 0
    assert tx.state.name == "ROLLED_BACK"


async def test_b28_a_deferred_constraint_is_told_as_it_is(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """An error of COMMIT itself passes unchanged, and is a rollback."""
    pool = make_pool(postgres_dsn)
    await pool.execute("CREATE TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    ran: list[str] = []
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.transaction() as tx:
            tx.on_rollback(lambda: ran.append("rollback"))
            await tx.executemany("INSERT INTO t VALUES ($1)", [(1,), (1,)])
    assert ran == ["rollback"]


async def test_b29_a_connection_lost_during_commit(postgres_dsn: str, make_pool: MakePool) -> None:
    """The third outcome: nobody knows. Only hooks that asked for it run."""
    ran: list[str] = []
    async with FaultProxy(*_address(postgres_dsn)) as proxy:
        pool = make_pool(_through(postgres_dsn, proxy))
        await pool.execute("CREATE TABLE t (x int)")
        with pytest.raises(CommitUnknown, match="may have been made") as caught:
            async with pool.transaction() as tx:
                tx.on_commit(lambda: ran.append("commit"))
                tx.on_commit(lambda: ran.append("unknown"), unknown=True)
                tx.on_rollback(lambda: ran.append("rollback"))
                await tx.execute("INSERT INTO t VALUES (1)")
                proxy.kill_after = b"COMMIT"
        assert isinstance(caught.value.__cause__, ConnectionLost)
        proxy.heal()
        assert ran == ["unknown"]
        assert tx.state.name == "UNKNOWN"
        assert await pool.fetchval("SELECT count(*) FROM t") == 1  # it did commit


async def test_b29_lost_before_commit_is_a_rollback(postgres_dsn: str, make_pool: MakePool) -> None:
    """A connection that was gone before COMMIT could be sent has certainly not committed."""
    ran: list[str] = []
    async with FaultProxy(*_address(postgres_dsn)) as proxy:
        pool = make_pool(_through(postgres_dsn, proxy))
        await pool.execute("CREATE TABLE t (x int)")
        with pytest.raises(ConnectionLost):
            async with pool.transaction() as tx:
                tx.on_rollback(lambda: ran.append("rollback"))
                await tx.execute("INSERT INTO t VALUES (1)")
                proxy.cut()
                while not tx._borrow.session.closed:  # type: ignore[union-attr]
                    await asyncio.sleep(0)
        assert ran == ["rollback"]
        assert await pool.fetchval("SELECT count(*) FROM t") == 0


async def test_b30_hooks_in_order_after_the_connection_is_back(table: Pool) -> None:
    """Hooks run in order, async or plain, when the connection is back in the pool."""
    seen: list[tuple[str, int]] = []

    async def later() -> None:
        await asyncio.sleep(0)
        seen.append(("async", table.stats().used))
        assert current_transaction() is None
        assert await table.fetchval("SELECT count(*) FROM t") == 1

    async with table.transaction() as tx:
        tx.on_commit(lambda: seen.append(("first", table.stats().used)))
        tx.on_commit(later)
        tx.on_commit(lambda: seen.append(("last", table.stats().used)))
        tx.on_rollback(lambda: seen.append(("never", 0)))
        await tx.execute("INSERT INTO t VALUES (1)")
        assert not seen
    assert seen == [("first", 0), ("async", 0), ("last", 0)]


async def test_b30_a_failing_hook_stops_nothing(
    table: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged; the others run, and the block does not raise."""
    ran: list[str] = []

    def fail() -> None:
        raise LookupError("a hook that fails")

    async with table.transaction() as tx:
        tx.on_commit(fail)
        tx.on_commit(lambda: ran.append("after"))
    assert ran == ["after"]
    assert "a hook that fails" in caplog.text


async def test_b30_hooks_of_a_savepoint_go_with_it(table: Pool) -> None:
    """Those of a savepoint that was rolled back are dropped, the others are kept, in order."""
    ran: list[str] = []
    async with table.transaction() as tx:
        tx.on_commit(lambda: ran.append("outer"))
        tx.before_commit(lambda: ran.append("before outer"))
        async with tx.transaction() as kept:
            kept.on_commit(lambda: ran.append("kept"))
            kept.before_commit(lambda: ran.append("before kept"))
        with pytest.raises(KeyError):
            async with tx.transaction() as dropped:
                dropped.on_commit(lambda: ran.append("dropped"))
                dropped.on_rollback(lambda: ran.append("dropped"))
                dropped.before_commit(lambda: ran.append("dropped"))
                async with dropped.transaction() as inner:
                    inner.on_commit(lambda: ran.append("dropped"))
                raise KeyError
    assert ran == ["before outer", "before kept", "outer", "kept"]


async def test_b30_statements_that_travel_with_commit(table: Pool) -> None:
    """They commit with the rest, those of a savepoint that was undone do not."""
    async with table.transaction() as tx:
        tx.send_with_commit("INSERT INTO t VALUES (1)")
        async with tx.transaction() as kept:
            kept.send_with_commit("INSERT INTO t VALUES (2)")
        with pytest.raises(KeyError):
            async with tx.transaction() as dropped:
                dropped.send_with_commit("INSERT INTO t VALUES (3)")
                raise KeyError
        tx.before_commit(lambda: tx.send_with_commit("INSERT INTO t VALUES (4)"))
        assert await tx.fetchval("SELECT count(*) FROM t") == 0
    assert [row["x"] for row in await table.fetch("SELECT x FROM t ORDER BY x")] == [1, 2, 4]


async def test_b30_a_statement_that_travels_with_commit_is_refused(table: Pool) -> None:
    """Its error rolls all back and is raised, and who sent it hears of it; once."""
    ran: list[object] = []
    with pytest.raises(Exception, match=r"(?i)unique") as caught:
        async with table.transaction() as tx:
            tx.on_commit(lambda: ran.append("commit"))
            tx.on_rollback(lambda: ran.append("rollback"))
            tx.send_with_commit("INSERT INTO t VALUES (1)")
            tx.send_with_commit("INSERT INTO t VALUES (1)", refused=ran.append)
    assert ran == [caught.value, "rollback"]
    assert tx.state.name == "ROLLED_BACK"
    assert await table.fetchval("SELECT count(*) FROM t") == 0
    async with table.transaction() as tx:  # the connection is as good as before
        tx.send_with_commit("INSERT INTO t VALUES (1)", refused=ran.append)
    assert len(ran) == 2


async def test_b28_a_swallowed_error_before_what_travels_with_commit(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """It is told as without that: the server answered COMMIT with ROLLBACK."""
    pool = make_pool(postgres_dsn)
    await pool.execute("CREATE TABLE t (x int PRIMARY KEY)")
    with pytest.raises(CommitRolledBack, match="savepoint"):
        async with pool.transaction() as tx:
            tx.send_with_commit("INSERT INTO t VALUES (2)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await tx.execute("SELECT 1 / 0")
    assert await pool.fetchval("SELECT count(*) FROM t") == 0


async def test_b30_what_travels_with_commit_makes_no_round_trip(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """PostgreSQL is asked once for all of it."""
    asked: list[str] = []
    pool = make_pool(postgres_dsn, min_size=1)
    async with pool.transaction() as tx:
        log = lambda record: asked.append(record.query)  # noqa: E731
        tx._borrow.session.raw.add_query_logger(log)  # type: ignore[union-attr]
        tx.send_with_commit("SELECT 1")
        tx.send_with_commit("SELECT 2")
        await tx.execute("SELECT 0")
    await asyncio.sleep(0)  # a logger is called a turn of the loop later
    assert asked == ["SELECT 0", "SELECT 1; SELECT 2; COMMIT"]


async def test_b30_before_commit_is_inside(table: Pool) -> None:
    """What it writes commits with the rest; what it raises rolls all back."""

    async def write() -> None:
        assert current_transaction() is tx
        await tx.execute("INSERT INTO t VALUES (2)")
        tx.before_commit(lambda: tx.execute("INSERT INTO t VALUES (3)"))

    async with table.transaction() as tx:
        tx.before_commit(write)
        await tx.execute("INSERT INTO t VALUES (1)")
    assert await table.fetchval("SELECT count(*) FROM t") == 3

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        async with table.transaction() as tx:
            tx.before_commit(fail)
            await tx.execute("INSERT INTO t VALUES (4)")
    assert await table.fetchval("SELECT count(*) FROM t") == 3


async def test_b31_a_failed_savepoint_leaves_the_outer_usable(table: Pool) -> None:
    """Nested transactions undo themselves alone, however deep, also after an SQL error."""
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(Exception, match=r"(?i)unique"):
            async with tx.transaction() as savepoint:
                await savepoint.execute("INSERT INTO t VALUES (2)")
                async with savepoint.transaction() as deeper:
                    await deeper.execute("INSERT INTO t VALUES (1)")
        async with tx.transaction() as savepoint:
            assert current_transaction() is savepoint
            await savepoint.execute("INSERT INTO t VALUES (3)")
        assert current_transaction() is tx
        await tx.execute("INSERT INTO t VALUES (4)")
    assert [row["x"] for row in await table.fetch("SELECT x FROM t ORDER BY x")] == [1, 3, 4]


async def test_b31_a_swallowed_error_in_a_savepoint(postgres_dsn: str, make_pool: MakePool) -> None:
    """An error swallowed inside a savepoint is told when it is released; the outer goes on."""
    pool = make_pool(postgres_dsn)
    await pool.execute("CREATE TABLE t (x int PRIMARY KEY)")
    async with pool.transaction() as tx:
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            async with tx.transaction() as savepoint:
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await savepoint.fetchval("SELECT 1 / 0")
        await tx.execute("INSERT INTO t VALUES (1)")
    assert await pool.fetchval("SELECT count(*) FROM t") == 1


@pytest.mark.parametrize(
    "options", [{"readonly": True}, {"isolation": "serializable"}, {"deferrable": True}], ids=str
)
async def test_b32_a_savepoint_is_what_its_transaction_is(
    table: Pool, options: dict[str, Any]
) -> None:
    """Options that a savepoint cannot have are refused, not ignored."""
    async with table.transaction() as tx:
        with pytest.raises(TransactionError, match="is what its transaction is"):
            tx.transaction(**options)


async def test_b31_on_a_connection_too(table: Pool) -> None:
    """connection.transaction() inside an open one is a savepoint of it."""
    async with table.acquire() as connection:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(KeyError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (2)")
                    raise KeyError
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (3)")
    assert await table.fetchval("SELECT count(*) FROM t") == 2


async def test_b32_options_of_a_transaction(postgres_dsn: str, make_pool: MakePool) -> None:
    """Isolation, readonly and deferrable reach the server."""
    pool = make_pool(postgres_dsn)
    for isolation in ("read_uncommitted", "read_committed", "repeatable_read", "serializable"):
        async with pool.transaction(isolation=isolation) as tx:
            shown = await tx.fetchval("SHOW transaction_isolation")
            assert shown.replace(" ", "_") == isolation == tx.isolation
    async with pool.transaction(isolation="Serializable", readonly=True, deferrable=True) as tx:
        assert await tx.fetchval("SHOW transaction_read_only") == "on"
        assert await tx.fetchval("SHOW transaction_deferrable") == "on"


async def test_b32_readonly_refuses_to_write(table: Pool) -> None:
    """A read-only transaction reads a snapshot and cannot write; the pool is none the worse."""
    generation = table._broker._ledger.generation  # type: ignore[union-attr]
    with pytest.raises(Exception, match=r"(?i)read-?only"):
        async with table.transaction(readonly=True) as tx:
            assert await tx.fetchval("SELECT count(*) FROM t") == 0
            await tx.execute("INSERT INTO t VALUES (1)")
    await table.execute("INSERT INTO t VALUES (1)")
    assert table._broker._ledger.generation == generation  # type: ignore[union-attr]


async def test_b32_unknown_isolation_is_named(table: Pool) -> None:
    """A level that does not exist is refused where it is written."""
    with pytest.raises(ValueError, match=r"isolation=.snapshot.*serializable"):
        table.transaction(isolation="snapshot")


async def test_b33_run_again_after_a_lost_race(postgres_dsn: str, make_pool: MakePool) -> None:
    """Two serializable transactions that collide both succeed; hooks run once each."""
    pool = make_pool(postgres_dsn, max_size=4)
    await pool.execute("CREATE TABLE t (x int)")
    await pool.execute("INSERT INTO t VALUES (0)")
    together = asyncio.Barrier(2)
    attempts: list[int] = []
    committed: list[int] = []

    async def increment(tx: Transaction) -> None:
        value = await tx.fetchval("SELECT x FROM t")
        attempts.append(value)
        if len(attempts) <= 2:
            await together.wait()
        tx.on_commit(lambda: committed.append(value))
        await tx.execute("UPDATE t SET x = $1", value + 1)

    await asyncio.gather(*(pool.run(increment, isolation="serializable") for _ in range(2)))
    assert await pool.fetchval("SELECT x FROM t") == 2
    assert len(attempts) == 3
    assert sorted(committed) == [0, 1]


def test_b33_retries_are_bounded_and_hooks_run_once() -> None:
    """Hooks of attempts that are run again never run; the last error is raised as it is."""

    class Collision(Exception):
        pass

    async def main() -> None:
        driver = StubDriver()
        driver.faults[Collision] = Fault("40001", retry=True)
        ran: list[str] = []
        attempts: list[float] = []
        async with Pool(driver, clock=VirtualClock()) as pool:

            async def collide(tx: Transaction) -> str:
                attempts.append(asyncio.get_running_loop().time())
                tx.on_commit(lambda: ran.append("commit"))
                tx.on_rollback(lambda: ran.append("rollback"))
                if len(attempts) < 3:
                    raise Collision
                return "done"

            assert await pool.run(collide) == "done"
            assert ran == ["commit"]
            assert len(attempts) == 3
            assert attempts[2] - attempts[1] > attempts[1] - attempts[0] > 0
            attempts[:] = [0.0] * -100
            ran.clear()

            async def always(tx: Transaction) -> None:
                tx.on_rollback(lambda: ran.append("rollback"))
                attempts.append(0)
                raise Collision

            with pytest.raises(Collision):
                await pool.run(always, retries=2)
            assert len(attempts) == 3
            assert ran == ["rollback"]

            async def other(tx: Transaction) -> None:
                attempts.append(0)
                raise LookupError

            with pytest.raises(LookupError):
                await pool.run(other)
            assert len(attempts) == 4

    run_virtual(main)


async def test_b34_a_transaction_belongs_to_its_task(table: Pool) -> None:
    """A child task is outside: it has no current transaction, and may not use its parent's."""

    async def child(tx: Transaction) -> None:
        assert current_transaction() is None
        for use in (tx.execute, tx.fetch, tx.fetchrow, tx.fetchval):
            with pytest.raises(TransactionError, match="another task"):
                await use("SELECT 1")
        with pytest.raises(TransactionError, match="another task"):
            tx.on_commit(lambda: None)
        async with table.transaction(readonly=True) as own:
            assert current_transaction() is own

    assert current_transaction() is None
    async with table.transaction() as tx:
        assert current_transaction() is tx
        await asyncio.create_task(child(tx))
        assert current_transaction() is tx
    assert current_transaction() is None


async def test_a_second_transaction_is_refused(table: Pool) -> None:
    """A second one in the same task names the two ways out."""
    async with table.transaction() as tx:
        with pytest.raises(TransactionError) as caught:
            async with table.transaction():
                pass
        assert "current_transaction().transaction()" in str(caught.value)
        assert "independent=True" in str(caught.value)
        assert await tx.fetchval("SELECT 1") == 1
    assert table.stats().used == 0


async def test_an_independent_transaction_commits_alone(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """With independent=True it does not go down with the other."""
    pool = make_pool(postgres_dsn)
    await pool.execute("CREATE TABLE t (x int)")
    with pytest.raises(KeyError):
        async with pool.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            async with pool.transaction(independent=True) as own:
                assert current_transaction() is own
                await own.execute("INSERT INTO t VALUES (2)")
            assert current_transaction() is tx
            raise KeyError
    assert [row["x"] for row in await pool.fetch("SELECT x FROM t")] == [2]


async def test_two_pools_do_not_care_about_each_other(
    table: Pool, make_pool: MakePool, sqlite_path: Any
) -> None:
    """A transaction on one pool does not keep the task from one on another."""
    other = make_pool("sqlite://")
    async with table.transaction() as tx:
        async with other.transaction() as inner:
            assert current_transaction() is inner
            with pytest.raises(TransactionError):
                async with table.transaction():
                    pass
        assert current_transaction() is tx


async def test_b35_round_trips_on_the_wire(postgres_dsn: str, make_pool: MakePool) -> None:
    """A borrow with one statement costs 1 round trip, a transaction with one costs 3."""
    async with FaultProxy(*_address(postgres_dsn)) as proxy:
        pool = make_pool(_through(postgres_dsn, proxy), max_size=1)
        await pool.fetchval("SELECT $1::int", 1)  # prepared from here on
        await pool.execute("CREATE TABLE t (x int)")
        await pool.execute("INSERT INTO t VALUES ($1)", 0)

        async def count(use: Any) -> int:
            before = proxy.round_trips
            await use()
            for _ in range(5):
                await asyncio.sleep(0.001)  # what would be done behind the caller's back counts
            return proxy.round_trips - before

        async def borrow() -> None:
            async with pool.acquire() as connection:
                await connection.fetchval("SELECT $1::int", 1)

        async def transact() -> None:
            async with pool.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES ($1)", 1)

        assert await count(borrow) == 1
        assert await count(lambda: pool.fetchval("SELECT $1::int", 1)) == 1
        assert await count(transact) == 3


async def test_the_pool_itself_stays_outside(table: Pool) -> None:
    """pool.fetch() in a transaction has a connection of its own and sees what is committed."""
    async with table.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        assert await table.fetchval("SELECT count(*) FROM t") == 0


async def test_no_warning_when_all_is_in_order(
    table: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """Commits and rollbacks in order leave nothing in the log."""
    with caplog.at_level(logging.INFO, "poolkit"):
        async with table.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(KeyError):
            async with table.transaction() as tx:
                raise KeyError
    assert caplog.text == ""
