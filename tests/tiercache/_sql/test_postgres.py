"""The statements of PostgreSQL, upon bare connections: what waits for what, and what wins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
import pytest
import pytest_asyncio

from tests.servers.postgres import PostgresServer
from tests.tiercache._sql.dialect import DialectContract
from tests.tiercache._sql.programs import OnPostgres, Run, asked, lease, load, readable, value
from tiercache._sql.names import Tables
from tiercache._sql.postgres import Postgres
from tiercache._sql.program import START, VERSION, Lease, Program, Replacement, Statement

T = TypeVar("T")
Connect = Callable[[], Awaitable[OnPostgres]]


@pytest.fixture
def dialect() -> Postgres:
    """The dialect upon the default tables."""
    return Postgres(Tables.of("tiercache"))


@pytest_asyncio.fixture
async def connect(postgres_dsn: str) -> AsyncIterator[Connect]:
    """Opens connections to a new database, closed afterwards."""
    connections: list[Any] = []

    async def connect() -> OnPostgres:
        connections.append(await asyncpg.connect(postgres_dsn))
        return OnPostgres(connections[-1])

    yield connect
    for connection in connections:
        await connection.close(timeout=5)


@pytest_asyncio.fixture
async def bare(connect: Connect) -> OnPostgres:
    """A connection to an empty database."""
    return await connect()


@pytest_asyncio.fixture
async def run(bare: OnPostgres, dialect: Postgres) -> OnPostgres:
    """A connection to a database with the schema in it."""
    await bare(dialect.create())
    return bare


class TestPostgres(DialectContract):
    async def written(self, run: Run) -> tuple[float, ...]:
        """Return when the tag ``t`` ends, and the transaction that wrote it."""
        [row] = await run.rows(
            "SELECT extract(epoch FROM expires)::float8, xmin::text::float8 FROM tiercache_tag"
            " WHERE tag = 't'"
        )
        return tuple(row)


async def blocked(watcher: OnPostgres, waiting: OnPostgres, program: Program[T]) -> asyncio.Task[T]:
    """Start a program and return once the server says that it waits for a lock."""
    task = asyncio.ensure_future(waiting(program))
    pid = waiting.connection.get_server_pid()
    async with asyncio.timeout(10):
        while not await watcher.connection.fetchval(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", pid
        ):
            assert not task.done()
            await asyncio.sleep(0.005)
    return task


async def test_a_session_that_found_nothing_learns_of_tables_made_meanwhile(
    connect: Connect, dialect: Postgres
) -> None:
    """Inside a transaction that has waited for its turn, the schema is seen and not made again."""
    one, other = await connect(), await connect()
    assert await one(dialect.version()) is None
    async with one.connection.transaction():
        await one.connection.fetch("SELECT pg_advisory_xact_lock(1)")
        await other(dialect.create())
        assert await one(dialect.version()) == VERSION


async def test_many_create_the_schema_at_once(connect: Connect, dialect: Postgres) -> None:
    """Processes that start together all find or make it; none fails."""

    async def create(run: OnPostgres) -> None:
        async with run.connection.transaction():
            await run(dialect.create())

    runners = [await connect() for _ in range(8)]
    await asyncio.gather(*map(create, runners))
    assert await runners[0](dialect.version()) == VERSION


async def test_a_schema_of_its_own(connect: Connect) -> None:
    """A prefix may name the schema that the tables are to be in, whatever it is called."""
    dialect = Postgres(Tables.of("order.cache"))
    run = await connect()
    await run.connection.execute('CREATE SCHEMA "order"')
    await run(dialect.create())
    assert await load(run, dialect, "a", "t") == ["a"]
    assert await readable(run, dialect, "a") == ["a"]


async def test_unlogged_tables(connect: Connect) -> None:
    """Tables may be kept out of the write-ahead log; the version is not."""
    run = await connect()
    await run(Postgres(Tables.of("tiercache"), unlogged=True).create())
    kinds = await run.connection.fetch(
        "SELECT relname, relpersistence FROM pg_class WHERE relkind = 'r' AND relname LIKE 'tierc%'"
    )
    assert {row[0]: row[1] for row in kinds} == {
        "tiercache_entry": b"u",
        "tiercache_tag": b"u",
        "tiercache_meta": b"p",
    }


async def test_a_codec_of_the_application_does_not_matter(
    run: OnPostgres, dialect: Postgres
) -> None:
    """Whoever taught asyncpg to turn jsonb into objects has done nothing to the cache."""
    for name in ("json", "jsonb"):
        await run.connection.set_type_codec(
            name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
    assert await load(run, dialect, "a", "t") == ["a"]
    assert await readable(run, dialect, "a") == ["a"]


async def test_two_misses_agree_on_a_tag_that_neither_saw(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """A tag made by a transaction under way is waited for, and its token is the one returned."""
    one, other = await connect(), await connect()
    transaction = one.connection.transaction()
    await transaction.start()
    made = await lease(one, dialect, "a", "t")
    fresh = {"": "another run", "t": "another t"}
    waiting = await blocked(run, other, dialect.lease("app", fresh, [Lease("b", "b")], 60.0))
    await transaction.commit()
    assert await waiting == (made, {"b"})


async def test_a_tag_that_dies_while_a_miss_waits_for_it_is_made_anew(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """The token returned is the one that is there afterwards, not the one that was seen first."""
    one, other = await connect(), await connect()
    await lease(run, dialect, "a", "t")
    transaction = one.connection.transaction()
    await transaction.start()
    await one(dialect.delete_tags("app", ["t"]))
    fresh = {"": "another run", "t": "another t"}
    waiting = await blocked(run, other, dialect.lease("app", fresh, [Lease("b", "b")], 60.0))
    await transaction.commit()
    tokens, _ = await waiting
    assert tokens["t"] == "another t"
    assert await run.connection.fetchval("SELECT token FROM tiercache_tag WHERE tag = 't'") == (
        "another t"
    )


async def test_an_invalidation_takes_a_fill_that_is_under_way(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """Deleting waits for a fill that has not committed, and deletes what it wrote."""
    one, other = await connect(), await connect()
    tokens = await lease(run, dialect, "a")
    transaction = one.connection.transaction()
    await transaction.start()
    fill = dialect.fill("app", [], [Replacement("a", value("a", tokens))])
    assert await one(fill) == {"a!": False}
    waiting = await blocked(run, other, dialect.delete_keys("app", ["a"]))
    await transaction.commit()
    await waiting
    assert await readable(run, dialect, "a") == []


async def test_a_fill_that_waited_for_an_invalidation_is_refused(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """A fill behind a deletion under way finds nothing to replace once that has committed."""
    one, other = await connect(), await connect()
    tokens = await lease(run, dialect, "a")
    transaction = one.connection.transaction()
    await transaction.start()
    await one(dialect.delete_keys("app", ["a"]))
    fill = dialect.fill("app", [], [Replacement("a", value("a", tokens))])
    waiting = await blocked(run, other, fill)
    await transaction.commit()
    assert await waiting == {}
    assert await readable(run, dialect, "a") == []


async def test_a_fill_that_waited_for_a_new_lease_is_refused(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """The token is compared with the row as it is when the lock is had."""
    one, other = await connect(), await connect()
    tokens = await lease(run, dialect, "a", token="old")
    transaction = one.connection.transaction()
    await transaction.start()
    await lease(one, dialect, "a", token="newer")
    fill = dialect.fill("app", [], [Replacement("old", value("a", tokens))])
    waiting = await blocked(run, other, fill)
    await transaction.commit()
    assert await waiting == {}


async def test_crossing_batches_do_not_wait_for_each_other_for_ever(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """Sessions that write the same rows in opposite orders meet no deadlock."""
    names = [f"n{n}" for n in range(30)]

    async def write(run: OnPostgres, order: list[str]) -> None:
        for _ in range(10):
            fresh = {tag: f"{tag} {id(run)}" for tag in ("", *order)}
            leases = [Lease(key, f"{key} {id(run)}") for key in order]
            tokens, _ = await run(dialect.lease("app", fresh, leases, 60.0))
            fills = [Replacement(f"{key} {id(run)}", value(key, tokens)) for key in order]
            await run(dialect.fill("app", order, fills))
            await run(dialect.release("app", leases))
            await run(dialect.delete_keys("app", order))
            await run(dialect.delete_tags("app", order))

    runners = [await connect() for _ in range(4)]
    orders = [names, names[::-1], names[15:] + names[:15], names[::-1]]
    await asyncio.gather(*map(write, runners, orders))
    deadlocks = await run.connection.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0


async def test_expire_passes_by_what_somebody_holds(
    run: OnPostgres, connect: Connect, dialect: Postgres
) -> None:
    """A locked row is left for the next time instead of being waited for."""
    other = await connect()
    await load(run, dialect, "held", ttl=-1.0)
    await load(run, dialect, "free", ttl=-1.0)
    async with other.connection.transaction():
        await other.connection.execute("SELECT FROM tiercache_entry WHERE key = 'held' FOR UPDATE")
        assert await asyncio.wait_for(run(dialect.expire(10)), 10) == 1
    assert await run(dialect.expire(10)) == 1


async def test_every_statement_finds_its_rows_by_index(run: OnPostgres, dialect: Postgres) -> None:
    """No statement of a request scans a table, however many entries there are."""
    await run.connection.execute(
        "INSERT INTO tiercache_entry (namespace, key, token, run, tags, expires, payload)"
        " SELECT 'app', 'key ' || n, n::text, 'run', '{}', now() + n * interval '1 second', 'x'"
        " FROM generate_series(1, 20000) n"
    )
    await run.connection.execute(
        "INSERT INTO tiercache_tag SELECT 'app', 'tag ' || n, n::text,"
        " now() + n * interval '1 second' FROM generate_series(1, 20000) n"
    )
    await run.connection.execute("ANALYZE tiercache_entry, tiercache_tag")
    run.seen.clear()
    await load(run, dialect, "a", "t")
    for plain in (False, True):
        await run(asked(dialect.read("app", ["a"], plain)))
        await run(asked(dialect.read("app", ["a", "b"], plain)))
    await run(dialect.release("app", [Lease("a", "a")]))
    await run(dialect.delete_keys("app", ["a"]))
    await run(dialect.delete_tags("app", ["t"]))
    await run(dialect.expire(10))
    await run(dialect.sweep(START, 10))
    for statement in run.seen:
        assert "Seq Scan on tiercache" not in await plan_of(run, statement)


async def plan_of(run: OnPostgres, statement: Statement) -> str:
    """Return the plan that the server would make for any parameters."""
    await run.connection.execute("SET plan_cache_mode = force_generic_plan")
    rows = await run.connection.fetch(f"EXPLAIN {statement.sql}", *statement.args)
    return "\n".join(row[0] for row in rows)


async def test_a_database_that_is_not_in_utf_8(
    postgres_server: PostgresServer, postgres_dsn: str, connect: Connect, dialect: Postgres
) -> None:
    """Folded names are ASCII, so that a database of any encoding holds them."""
    admin = await connect()
    name = f"{postgres_dsn.rpartition('/')[2]}_latin"
    await admin.connection.execute(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    )
    connection = await asyncpg.connect(f"{postgres_dsn}_latin")
    try:
        run = OnPostgres(connection)
        await run(dialect.create())
        assert await load(run, dialect, "a", "t") == ["a"]
        assert await readable(run, dialect, "a") == ["a"]
    finally:
        await connection.close(timeout=5)
        postgres_server.drop_database(f"{postgres_dsn}_latin")
