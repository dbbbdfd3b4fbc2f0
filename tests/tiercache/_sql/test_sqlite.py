"""The statements of SQLite, upon a bare connection."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.tiercache._sql.dialect import DialectContract
from tests.tiercache._sql.programs import OnSqlite, Run, load, readable
from tiercache._sql.names import Tables
from tiercache._sql.program import START, Lease, Statement
from tiercache._sql.sqlite import Sqlite
from tiercache.errors import TierError


@pytest.fixture
def dialect() -> Sqlite:
    """The dialect upon the default tables."""
    return Sqlite(Tables.of("tiercache"))


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[OnSqlite]:
    """A connection to an empty file."""
    connection = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    yield OnSqlite(connection)
    connection.close()


@pytest_asyncio.fixture
async def run(bare: OnSqlite, dialect: Sqlite) -> OnSqlite:
    """A connection to a file with the schema in it."""
    await bare(dialect.create())
    return bare


class TestSqlite(DialectContract):
    async def written(self, run: Run) -> tuple[float, ...]:
        """Return when the tag ``t`` ends."""
        [row] = await run.rows("SELECT expires FROM tiercache_tag WHERE tag = 't'")
        return tuple(row)


async def test_an_sqlite_that_is_too_old(
    run: OnSqlite, dialect: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused in words instead of by a syntax error."""
    monkeypatch.setattr("tiercache._sql.sqlite.OLDEST", (99, 0, 0))
    with pytest.raises(TierError, match=r"too old.* 99\.0\.0 or later"):
        await run(dialect.version())


async def test_names_of_json_come_back(run: OnSqlite, dialect: Sqlite) -> None:
    """Quotes, backslashes, braces and digits survive the way through JSON."""
    for name in ['"', "\\", '\\"', "{}", "$[0]", "123", "null", "a.b", "\\u0041"]:
        assert await load(run, dialect, name, name, f"{name}2") == [name]
        assert await readable(run, dialect, name) == [name]
        await run(dialect.delete_tags("app", [name]))
        assert await readable(run, dialect, name) == []


async def test_every_statement_finds_its_rows_by_index(run: OnSqlite, dialect: Sqlite) -> None:
    """No statement of a request scans a table, however many entries there are."""
    await load(run, dialect, "a", "t")
    await run(dialect.read("app", ["a"]))
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
