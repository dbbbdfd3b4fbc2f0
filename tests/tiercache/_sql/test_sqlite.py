"""The statements of SQLite, upon a bare connection."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.tiercache._sql.programs import OnSqlite, asked, lease, load, readable, value
from tiercache._sql.names import Tables
from tiercache._sql.program import START, VERSION, Lease, Replacement, Statement
from tiercache._sql.sqlite import Sqlite
from tiercache.errors import TierError


@pytest.fixture
def dialect() -> Sqlite:
    """The dialect upon the default tables."""
    return Sqlite(Tables.of("tiercache"))


@pytest_asyncio.fixture
async def run(tmp_path: Path, dialect: Sqlite) -> AsyncIterator[OnSqlite]:
    """A connection to a file with the schema in it."""
    connection = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    runner = OnSqlite(connection)
    await runner(dialect.create())
    yield runner
    connection.close()


async def test_the_version_is_none_until_the_schema_is_there(dialect: Sqlite) -> None:
    """An empty file has no version; a schema made twice has the one it was made with."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    runner = OnSqlite(connection)
    assert await runner(dialect.version()) is None
    await runner(dialect.create())
    await runner(dialect.create())
    assert await runner(dialect.version()) == VERSION
    connection.close()


async def test_an_sqlite_that_is_too_old(
    run: OnSqlite, dialect: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused in words instead of by a syntax error."""
    monkeypatch.setattr("tiercache._sql.sqlite.OLDEST", (99, 0, 0))
    with pytest.raises(TierError, match=r"too old.* 99\.0\.0 or later"):
        await run(dialect.version())


async def test_a_name_as_long_as_an_index_allows_is_found(run: OnSqlite, dialect: Sqlite) -> None:
    """Keys and tags of the greatest folded length are stored and read."""
    key, tag = "k" * 512, "t" * 512
    assert await load(run, dialect, key, tag) == [key]
    assert await readable(run, dialect, key) == [key]


async def test_names_of_json_come_back(run: OnSqlite, dialect: Sqlite) -> None:
    """Quotes, backslashes, braces and digits survive the way through JSON."""
    for name in ['"', "\\", '\\"', "{}", "$[0]", "123", "null", "a.b", "\\u0041"]:
        assert await load(run, dialect, name, name, f"{name}2") == [name]
        assert await readable(run, dialect, name) == [name]
        await run(dialect.delete_tags("app", [name]))
        assert await readable(run, dialect, name) == []


async def test_what_is_over_reads_as_nothing(run: OnSqlite, dialect: Sqlite) -> None:
    """A value past its ttl is not read, a lease past its ttl cannot be filled."""
    await load(run, dialect, "value", ttl=-1.0)
    assert await readable(run, dialect, "value") == []
    tokens = await lease(run, dialect, "lease", ttl=-1.0)
    assert await run(dialect.fill("app", [], [Replacement("lease", value("lease", tokens))])) == {}


async def test_a_fill_upon_a_dead_tag_is_refused(run: OnSqlite, dialect: Sqlite) -> None:
    """What nobody could read is not written: the lease stays what it was."""
    tokens = await lease(run, dialect, "a", "t")
    await run(dialect.delete_tags("app", ["t"]))
    fill = dialect.fill("app", ["t"], [Replacement("a", value("a", tokens))])
    assert await run(fill) == {}
    await lease(run, dialect, "b", "t")
    fill = dialect.fill("app", ["t"], [Replacement("a", value("a", tokens))])
    assert await run(fill) == {}


async def test_a_tag_lives_as_long_as_its_entries(run: OnSqlite, dialect: Sqlite) -> None:
    """A fill extends its tags ahead; a second one within that time writes nothing."""

    def expires() -> float:
        [[at]] = run.connection.execute("SELECT expires FROM tiercache_tag WHERE tag = 't'")
        return float(at)

    await load(run, dialect, "a", "t", ttl=10.0)
    first = expires()
    await load(run, dialect, "a", "t", ttl=86400.0)
    second = expires()
    assert second - first > 86400.0
    await load(run, dialect, "b", "t", ttl=86400.0)
    assert expires() == second
    await load(run, dialect, "c", "t", ttl=None)
    assert expires() == float("inf")


async def test_expire_deletes_what_is_over_in_batches(run: OnSqlite, dialect: Sqlite) -> None:
    """Values, leases and tags past their time go, so many at a time; the others stay."""
    for n in range(3):
        await load(run, dialect, f"over {n}", ttl=-1.0)
    await lease(run, dialect, "lease", "tag", ttl=-4000.0)
    await load(run, dialect, "good")
    assert await run(dialect.expire(2)) == 2
    assert await run(dialect.expire(100)) == 3
    assert await run(dialect.expire(100)) == 0
    assert await readable(run, dialect, "good") == ["good"]


async def test_sweep_deletes_what_nobody_can_read(run: OnSqlite, dialect: Sqlite) -> None:
    """Values of a dead tag go, window by window; leases and readable values stay."""
    for n in range(5):
        await load(run, dialect, f"k{n}", "dead" if n % 2 else "alive")
    await lease(run, dialect, "lease")
    await run(dialect.delete_tags("app", ["dead"]))
    at, deleted, steps = START, 0, 0
    while True:
        swept = await run(dialect.sweep(at, 2))
        at, deleted, steps = swept.at, deleted + swept.deleted, steps + 1
        if at == START:
            break
    assert deleted == 2
    assert steps >= 3
    left = run.connection.execute("SELECT key FROM tiercache_entry ORDER BY key").fetchall()
    assert left == [("k0",), ("k2",), ("k4",), ("lease",)]


async def test_sweep_deletes_the_values_of_a_cleared_namespace(
    run: OnSqlite, dialect: Sqlite
) -> None:
    """Without the run token of its namespace no value can be read."""
    await load(run, dialect, "a", ttl=None)
    await run(dialect.delete_tags("app", [""]))
    assert (await run(dialect.sweep(START, 10))).deleted == 1


async def test_every_statement_finds_its_rows_by_index(run: OnSqlite, dialect: Sqlite) -> None:
    """No statement of a request scans a table, however many entries there are."""
    await load(run, dialect, "a", "t")
    await run(dialect.put("app", ["t"], [value("a", {"": "r", "t": "x"})]))
    for plain in (False, True):
        await run(asked(dialect.read("app", ["a"], plain)))
        await run(asked(dialect.read("app", ["a", "b"], plain)))
    await run(dialect.release("app", [Lease("a", "a")]))
    await run(dialect.delete_keys("app", ["a"]))
    await run(dialect.delete_tags("app", ["t"]))
    await run(dialect.expire(10))
    await load(run, dialect, "dead", "t")
    await run(dialect.delete_tags("app", ["t"]))
    assert (await run(dialect.sweep(START, 10))).deleted == 1
    plans = [
        row[3]
        for statement in run.seen
        if "tiercache_" in statement.sql and not statement.sql.startswith("CREATE")
        for row in run.connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", dict_of(statement))
    ]
    scans = [plan for plan in plans if re.match(r"SCAN (e|t|r|tiercache_\w+)\b(?! VIRTUAL)", plan)]
    assert any("SEARCH" in plan for plan in plans)
    assert scans == []


def dict_of(statement: Statement) -> dict[str, object]:
    """Return the parameters by the names that SQLite itself gives ``$1``."""
    return {str(n): arg for n, arg in enumerate(statement.args, 1)}
