"""Behaviours 24 to 27: what travels from one borrower to the next, and what does not."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from poolkit import ConnectFailed, Connection, Pool
from poolkit._session import Dirt
from poolkit.testing import FaultProxy
from tests.waiting import until

MakePool = Callable[..., Pool]


async def test_b24_returned_in_a_transaction(
    dsn: str, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is rolled back, with a warning."""
    pool = make_pool(dsn, max_size=1)
    await pool.execute("CREATE TABLE t (x int)")
    async with pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO t VALUES (1)")
    assert await pool.fetchval("SELECT count(*) FROM t") == 0
    assert "returned with a transaction open" in caplog.text


async def test_b24_returned_in_the_middle_of_a_query(
    postgres_dsn: str, make_pool: MakePool
) -> None:
    """One that another task is still using is closed, not lent."""
    pool = make_pool(postgres_dsn, max_size=1)
    async with pool.acquire() as connection:
        session = connection._borrow.slot.session
        query = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.01)
    assert session.closed
    with pytest.raises(ConnectionError):
        await query
    assert await pool.fetchval("SELECT 1") == 1


DIRTY = [
    ("SET search_path = dirt", "SELECT current_setting('search_path') LIKE '%dirt%'"),
    ("SET app.tenant = 'x'", "SELECT coalesce(current_setting('app.tenant', true), '') <> ''"),
    (
        "SELECT set_config('statement_timeout', '5s', false)",
        "SELECT current_setting('statement_timeout') = '5s'",
    ),
    ("LISTEN dirt", "SELECT count(*) > 0 FROM pg_listening_channels()"),
    (
        "SELECT pg_advisory_lock(7)",
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'",
    ),
    ("CREATE TEMP TABLE dirt (x int)", "SELECT to_regclass('dirt') IS NOT NULL"),
    (
        "DECLARE dirt CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'dirt'",
    ),
    ("PREPARE dirt AS SELECT 1", "SELECT count(*) > 0 FROM pg_prepared_statements "
     "WHERE name = 'dirt'"),
    ("SET ROLE pg_read_all_data", "SELECT current_user = 'pg_read_all_data'"),
]  # fmt: skip


@pytest.mark.parametrize(("dirt", "seen"), DIRTY)
async def test_b25_session_state_does_not_travel(
    postgres_dsn: str, make_pool: MakePool, dirt: str, seen: str
) -> None:
    """What one borrower leaves in its session, the next does not find."""
    pool = make_pool(postgres_dsn, max_size=1)
    async with pool.acquire() as connection:
        await connection.execute(dirt)
        assert await connection.fetchval(seen)
    async with pool.acquire() as connection:
        assert not await connection.fetchval(seen)


async def test_b25_nor_does_what_was_done_with_raw(postgres_dsn: str, make_pool: MakePool) -> None:
    """A connection whose raw was taken is reset, listeners included."""
    pool = make_pool(postgres_dsn, max_size=1)
    heard: list[Any] = []
    async with pool.acquire() as connection:
        await connection.raw.execute("SET app.tenant = 'x'")
        await connection.raw.add_listener("dirt", lambda *args: heard.append(args))
    async with pool.acquire() as connection:
        assert not await connection.fetchval("SELECT current_setting('app.tenant', true)")
        await connection.execute("NOTIFY dirt")
        await connection.fetchval("SELECT 1")
    assert not heard


@pytest.mark.parametrize(
    ("dirt", "seen"),
    [
        ("PRAGMA cache_size = 7", "SELECT cache_size = 7 FROM pragma_cache_size"),
        ("CREATE TEMP TABLE dirt (x)", "SELECT count(*) FROM temp.sqlite_master"),
        ("ATTACH ':memory:' AS dirt", "SELECT count(*) - 1 FROM pragma_database_list"),
    ],
)
async def test_b25_session_state_of_sqlite_does_not_travel(
    sqlite_dsn: str, make_pool: MakePool, dirt: str, seen: str
) -> None:
    """Pragmas, temporary tables and attached databases stay behind, too."""
    pool = make_pool(sqlite_dsn, max_size=1)
    async with pool.acquire() as connection:
        await connection.execute(dirt)
        assert await connection.fetchval(seen)
    async with pool.acquire() as connection:
        assert not await connection.fetchval(seen)


async def test_b25_the_releaser_does_not_wait(postgres_dsn: str, make_pool: MakePool) -> None:
    """A dirty connection is reset after its release returned, not before."""
    pool = make_pool(postgres_dsn, max_size=1)
    connection = await pool.acquire()
    await connection.execute("SET app.tenant = 'x'")
    connection.release()
    assert pool.stats().connecting == 1  # being cleaned
    await until(lambda: pool.stats().idle == 1)


@pytest.mark.parametrize(("reset", "plain", "dirty"), [("always", 3, 5), ("never", 1, 1)])
async def test_b25_reset_can_be_chosen(
    postgres_dsn: str, make_pool: MakePool, reset: str, plain: int, dirty: int
) -> None:
    """ "always" resets even the clean, "never" not even the dirty; counted in round trips."""
    host, port = postgres_dsn.rpartition("/")[0].rpartition("@")[2].split(":")
    async with FaultProxy(host, int(port)) as proxy:
        dsn = f"postgresql://postgres@127.0.0.1:{proxy.port}/{postgres_dsn.rpartition('/')[2]}"
        pool = make_pool(dsn, max_size=1, reset=reset)
        await pool.fetchval("SELECT 1")
        await until(lambda: pool.stats().idle == 1)
        before = proxy.round_trips
        await pool.fetchval("SELECT 1")
        await until(lambda: pool.stats().idle == 1)
        assert proxy.round_trips - before == plain
        async with pool.acquire() as connection:
            await connection.execute("SET app.tenant = 'x'")
        await until(lambda: pool.stats().idle == 1)
        async with pool.acquire() as connection:
            tenant = await connection.fetchval("SELECT current_setting('app.tenant', true)")
        assert tenant == ("x" if reset == "never" else "")


async def test_b25_settings_of_init_are_put_back(postgres_dsn: str, make_pool: MakePool) -> None:
    """What init set is there after a reset, which erases it."""

    async def init(connection: Connection) -> None:
        await connection.execute("SET application_name = 'mine'")
        await connection.fetchval("SELECT set_config('app.tenant', $1, false)", "a")
        await connection.execute("CREATE TEMP TABLE scratch (x int)")

    pool = make_pool(postgres_dsn, max_size=1, init=init)
    async with pool.acquire() as connection:
        session = connection._borrow.slot.session
        await connection.execute("SET application_name = 'theirs'")
    async with pool.acquire() as connection:
        assert connection._borrow.slot.session is session
        assert await connection.fetchval("SHOW application_name") == "mine"
        assert await connection.fetchval("SELECT current_setting('app.tenant')") == "a"
        assert await connection.fetchval("SELECT count(*) FROM scratch") == 0


async def test_b26_init_on_sqlite_is_on_every_connection(
    sqlite_dsn: str, make_pool: MakePool
) -> None:
    """A function of init is there for every statement, also for those that share connections."""

    async def init(connection: Connection) -> None:
        connection.raw.create_function("shout", 1, str.upper)

    pool = make_pool(sqlite_dsn, max_size=3, init=init)
    values = await asyncio.gather(*(pool.fetchval("SELECT shout('a')") for _ in range(20)))
    assert values == ["A"] * 20


async def test_b27_server_settings_are_options(postgres_dsn: str, make_pool: MakePool) -> None:
    """Settings, statement timeout and application name reach every session, also after a reset."""
    pool = make_pool(
        postgres_dsn,
        max_size=1,
        server_settings={"work_mem": "8MB"},
        statement_timeout=1.5,
        application_name="orders",
    )
    for _ in range(2):
        async with pool.acquire() as connection:
            assert await connection.fetchval("SHOW work_mem") == "8MB"
            assert await connection.fetchval("SHOW statement_timeout") == "1500ms"
            assert await connection.fetchval("SHOW application_name") == "orders"
            await connection.execute("SET work_mem = '9MB'")


async def test_b27_without_prepared_statements(postgres_dsn: str, make_pool: MakePool) -> None:
    """With statement_cache_size=0 no named statement is left, as a PgBouncer wants it."""
    pool = make_pool(postgres_dsn, max_size=1, statement_cache_size=0)
    await pool.fetchval("SELECT $1::int", 1)
    async with pool.transaction() as tx:
        await tx.fetch("SELECT $1::text", "a")
    assert await pool.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0


async def test_b25_plain_statements_need_no_reset(
    dsn: str, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """After plain work the very connection is idle at once."""
    caplog.set_level(logging.DEBUG, "poolkit")
    pool = make_pool(dsn, max_size=1)
    await pool.execute("CREATE TABLE t (x int)")
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO t VALUES ($1)", 1)
        await connection.fetch("SELECT * FROM t")
        async with connection.transaction():
            await connection.execute("UPDATE t SET x = 2")
        assert connection._borrow.slot.dirt == Dirt.NONE
    assert (pool.stats().idle, pool.stats().connecting) == (1, 0)


async def test_b26_init_that_hangs(sqlite_dsn: str, make_pool: MakePool) -> None:
    """It has the time of one attempt to connect; then the cause is raised."""

    async def init(connection: Connection) -> None:
        await asyncio.Event().wait()

    pool = make_pool(sqlite_dsn, init=init, connect_timeout=0.05)
    async with asyncio.timeout(20):
        with pytest.raises(ConnectFailed, match="init= did not end within connect_timeout=0.05"):
            await pool.open()
