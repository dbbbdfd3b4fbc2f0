"""Behaviour 27: a PgBouncer between the pool and the server, in transaction mode above all."""

import asyncio
import logging
from collections.abc import Callable

import pytest
from asyncpg.exceptions import InvalidSQLStatementNameError

from poolkit import ConnectFailed, Connection, Pool, PoolError
from poolkit.listener import Notification
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.waiting import until

MakePool = Callable[..., Pool]
_LIMIT = 20
_PID = "SELECT pg_backend_pid()"


# --- what works


async def test_b27_statements(pgbouncer_dsn: str, make_pool: MakePool) -> None:
    """Every method that runs a statement does so, with and without parameters."""
    pool = make_pool(pgbouncer_dsn, statement_cache_size=0)
    await pool.execute("CREATE TABLE t (x int, y text)")
    await pool.executemany("INSERT INTO t VALUES ($1, $2)", [(n, str(n)) for n in range(5)])
    assert await pool.execute("UPDATE t SET y = $2 WHERE x < $1", 2, "a") == 2
    assert await pool.fetchval("SELECT count(*) FROM t WHERE y = $1", "a") == 2
    row = await pool.fetchrow("SELECT * FROM t ORDER BY x DESC")
    assert row is not None
    assert dict(row) == {"x": 4, "y": "4"}
    assert [row["x"] for row in await pool.fetch("SELECT x FROM t WHERE x > $1", 2)] == [3, 4]


async def test_b27_types_that_must_be_asked_for(pgbouncer_dsn: str, make_pool: MakePool) -> None:
    """Values of types that the client has to look up first arrive, too."""
    pool = make_pool(pgbouncer_dsn, statement_cache_size=0)
    await pool.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    await pool.execute("CREATE TABLE t (x mood[])")
    await pool.execute("INSERT INTO t VALUES ($1)", ["sad", "happy"])
    assert await pool.fetchval("SELECT x FROM t WHERE $1 = ANY (x)", "sad") == ["sad", "happy"]


async def test_b27_transactions_and_savepoints(pgbouncer_dsn: str, make_pool: MakePool) -> None:
    """A transaction stays on one server connection; savepoints and options do what they say."""
    pool = make_pool(pgbouncer_dsn, statement_cache_size=0)
    await pool.execute("CREATE TABLE t (x int)")
    async with pool.transaction(isolation="serializable") as tx:
        pid = await tx.fetchval(_PID)
        await tx.execute("INSERT INTO t VALUES ($1)", 1)
        with pytest.raises(ZeroDivisionError):
            async with tx.transaction():
                await tx.executemany("INSERT INTO t VALUES ($1)", [(2,), (3,)])
                raise ZeroDivisionError
        assert await tx.fetchval("SHOW transaction_isolation") == "serializable"
        assert await tx.fetchval(_PID) == pid
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES ($1)", 4)
            raise ZeroDivisionError
    assert await pool.fetchval("SELECT array_agg(x) FROM t") == [1]


async def test_b27_twenty_tasks_share_two_server_connections(
    pgbouncer_dsn: str, make_pool: MakePool
) -> None:
    """20 tasks over 5 connections over 2 of the server's: every answer goes to who asked."""
    pool = make_pool(pgbouncer_dsn, min_size=5, max_size=5, statement_cache_size=0)
    await pool.execute("CREATE TABLE t (task int, round int)")
    pids: set[int] = set()

    async def work(task: int) -> None:
        for number in range(10):
            assert await pool.fetchval("SELECT $1::int", task) == task
            assert await pool.fetchval(f"SELECT {task} + {number}") == task + number
            await pool.executemany("INSERT INTO t VALUES ($1, $2)", [(task, number)] * 2)
            async with pool.transaction() as tx:
                pids.add(await tx.fetchval(_PID))
                await tx.execute("INSERT INTO t VALUES ($1, $2)", task, number)
                mine = "SELECT count(*) FROM t WHERE (task, round) = ($1, $2)"
                assert await tx.fetchval(mine, task, number) == 3

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for task in range(20):
            group.create_task(work(task))
    assert await pool.fetchval("SELECT count(*) FROM t") == 20 * 10 * 3
    assert pool.stats().size == 5
    assert len(pids) == 2


async def test_b27_a_cancelled_statement_ends_on_the_server(
    pgbouncer_dsn: str, make_pool: MakePool, postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    """The cancellation finds its way, and the connection is lent again."""
    pool = make_pool(pgbouncer_dsn, max_size=1, statement_cache_size=0)
    async with pool.acquire() as connection:
        session = connection._borrow.slot.session
    running = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%'"

    async def is_running() -> bool:
        return await asyncio.to_thread(postgres_server.psql, running, postgres_dsn) == "t"

    query = asyncio.ensure_future(pool.fetchval("SELECT pg_sleep(60), $1::int", 1))
    async with asyncio.timeout(_LIMIT):
        while not await is_running():
            pass
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        async with pool.acquire() as connection:
            assert connection._borrow.slot.session is session
            assert await connection.fetchval("SELECT $1::int", 2) == 2


async def test_b27_a_pgbouncer_that_was_killed(
    postgres_server: PostgresServer, postgres_dsn: str, make_pool: MakePool
) -> None:
    """Once it is back, the pool serves again."""
    with PgBouncer(postgres_server) as pgbouncer:
        dsn = pgbouncer.through(postgres_dsn)
        pool = make_pool(dsn, min_size=3, max_size=3, statement_cache_size=0)
        await pool.open()
        await until(lambda: pool.stats().idle == 3)
        pgbouncer.kill()
        await until(lambda: pool.stats().idle == 0)
        await asyncio.to_thread(pgbouncer.start)
        assert await pool.fetchval("SELECT $1::int", 1, timeout=_LIMIT) == 1
        await until(lambda: pool.stats().idle == 3)


# --- prepared statements


async def _on_both(pool: Pool, sql: str) -> list[object]:
    """Fetch a value through one connection on each of the server's two, in transaction mode."""
    async with pool.acquire() as mine, pool.acquire() as second, pool.acquire() as third:
        holding = second.transaction()
        async with mine.transaction():
            values = [await mine.fetchval(sql)]
            await holding.__aenter__()  # takes the one that is left
        async with third.transaction():  # takes the one that was mine
            await holding.__aexit__(None, None, None)
            return [*values, await mine.fetchval(sql)]


async def test_b27_unnamed_statements_run_anywhere(pgbouncer_dsn: str, make_pool: MakePool) -> None:
    """With statement_cache_size=0 one connection works on whichever of the server's is free."""
    pool = make_pool(pgbouncer_dsn, min_size=3, max_size=3, statement_cache_size=0)
    first, second = await _on_both(pool, _PID)
    assert first != second


async def test_b27_named_statements_are_refused_with_the_way_out(
    pgbouncer: PgBouncer, postgres_server: PostgresServer, postgres_dsn: str, make_pool: MakePool
) -> None:
    """Without it the prepared statement is missing there, and the error names the option."""
    off = {"max_prepared_statements": 0} if pgbouncer.version >= (1, 21) else {}
    with PgBouncer(postgres_server, **off) as private:
        pool = make_pool(private.through(postgres_dsn), min_size=3, max_size=3)
        with pytest.raises(InvalidSQLStatementNameError, match="set statement_cache_size to 0"):
            await _on_both(pool, _PID)


# --- settings of the session


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_b27_what_pgbouncer_carries_survives_a_reset(
    postgres_server: PostgresServer, postgres_dsn: str, make_pool: MakePool, mode: str
) -> None:
    """Application name and time zone, given as options, are there after a dirty session, too."""
    with PgBouncer(postgres_server, mode) as pgbouncer:
        pool = make_pool(
            pgbouncer.through(postgres_dsn),
            max_size=1,
            statement_cache_size=0,
            application_name="it's ours",
            server_settings={"timezone": "Asia/Tokyo"},
        )
        for _ in range(2):
            async with pool.acquire() as connection:
                session = connection._borrow.slot.session
                assert await connection.fetchval("SHOW application_name") == "it's ours"
                assert await connection.fetchval("SHOW timezone") == "Asia/Tokyo"
                await connection.execute("SET timezone = 'Europe/Paris'")
        async with pool.acquire() as connection:
            assert connection._borrow.slot.session is session


@pytest.mark.parametrize(
    ("option", "name"),
    [({"server_settings": {"work_mem": "8MB"}}, "work_mem"),
     ({"statement_timeout": 1.5}, "statement_timeout")],
)  # fmt: skip
async def test_b27_a_refused_setting_names_the_way_out(
    pgbouncer_dsn: str, option: dict[str, object], name: str
) -> None:
    """Opening fails at once, and says what to do about the setting."""
    with pytest.raises(ConnectFailed, match=f"parameter: {name}; .* set {name} with ALTER ROLE"):
        await Pool(pgbouncer_dsn, statement_cache_size=0, **option).open()  # type: ignore[arg-type]


async def test_b27_settings_of_the_database(
    postgres_server: PostgresServer, pgbouncer_dsn: str, postgres_dsn: str, make_pool: MakePool
) -> None:
    """Those of ALTER DATABASE (or ROLE) hold in every transaction, whoever ran before."""
    name = postgres_dsn.rpartition("/")[2]
    postgres_server.psql(f"ALTER DATABASE {name} SET statement_timeout = '1500ms'")
    pool = make_pool(pgbouncer_dsn, min_size=3, max_size=3, statement_cache_size=0)
    assert await _on_both(pool, "SHOW statement_timeout") == ["1500ms", "1500ms"]


async def test_b27_session_mode_is_a_session(
    postgres_server: PostgresServer, postgres_dsn: str, make_pool: MakePool
) -> None:
    """There a dropped setting can be set by init, state does not travel, and names are kept."""

    async def init(connection: Connection) -> None:
        await connection.execute("SET work_mem = '8MB'")

    with PgBouncer(postgres_server, "session", ignore_startup_parameters="work_mem") as pgbouncer:
        dsn = pgbouncer.through(postgres_dsn)
        pool = make_pool(dsn, max_size=1, init=init, server_settings={"work_mem": "9MB"})
        for _ in range(2):
            async with pool.acquire() as connection:
                assert await connection.fetchval("SHOW work_mem") == "8MB"
                assert not await connection.fetchval("SELECT current_setting('app.tenant', true)")
                await connection.execute("SET app.tenant = 'x'")
                await connection.execute("SET work_mem = '7MB'")


# --- what needs a session of the server's own


@pytest.mark.parametrize("dirt", ["SET app.tenant = 'x'", "SELECT pg_advisory_lock(7)"])
async def test_b27_traces_are_warned_of(
    postgres_server: PostgresServer,
    postgres_dsn: str,
    make_pool: MakePool,
    caplog: pytest.LogCaptureFixture,
    dirt: str,
) -> None:
    """What changes the session in transaction mode is reported, once per connection."""
    with PgBouncer(postgres_server) as pgbouncer:
        pool = make_pool(pgbouncer.through(postgres_dsn), max_size=1, statement_cache_size=0)
        for _ in range(2):
            await pool.execute(dirt)
            await until(lambda: pool.stats().idle == 1)
    assert caplog.text.count("is behind a pooler") == 1
    assert "use SET LOCAL and pg_advisory_xact_lock" in caplog.text


async def test_b27_what_a_transaction_may_use_instead(
    pgbouncer_dsn: str, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """SET LOCAL and transaction locks hold until the end, no longer, and nothing is reported."""
    caplog.set_level(logging.WARNING, "poolkit")
    pool = make_pool(pgbouncer_dsn, statement_cache_size=0)
    lock = "SELECT pg_try_advisory_xact_lock(7)"
    async with pool.transaction() as tx:
        await tx.execute("SET LOCAL app.tenant = 'x'")
        assert await tx.fetchval("SELECT current_setting('app.tenant')") == "x"
        assert await tx.fetchval(lock)
        assert not await pool.fetchval(lock)
    assert await pool.fetchval(lock)
    assert not await pool.fetchval("SELECT current_setting('app.tenant', true)")
    assert not caplog.records


async def test_b27_listen_is_refused(pgbouncer_dsn: str, make_pool: MakePool) -> None:
    """A subscription that would hear nothing is an error, and its connection comes back."""
    pool = make_pool(pgbouncer_dsn, statement_cache_size=0)
    with pytest.raises(PoolError, match="a pool that connects to PostgreSQL itself"):
        await pool.listen("orders").__aenter__()
    await until(lambda: pool.stats().used == 0)
    assert await pool.fetchval("SELECT count(*) FROM pg_listening_channels()") == 0


async def test_b27_listen_in_session_mode(
    postgres_server: PostgresServer,
    postgres_dsn: str,
    make_pool: MakePool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There it hears; that it might not, were the mode another one, is logged."""
    with PgBouncer(postgres_server, "session") as pgbouncer:
        pool = make_pool(pgbouncer.through(postgres_dsn), max_size=2)
        async with asyncio.timeout(_LIMIT), pool.listen("orders") as listener:
            await pool.execute("NOTIFY orders, 'x'")
            assert await anext(listener) == Notification("orders", "x")
    assert "in transaction mode nothing is heard" in caplog.text
