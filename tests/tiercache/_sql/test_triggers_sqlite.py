"""The triggers of SQLite: what a change of a row writes into the outbox."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool
from tests.tiercache._sql.triggers import TriggerContract
from tests.tiercache._sql.watching import Watching
from tiercache import KeyTemplateError
from tiercache._sql.triggers import Watched
from tiercache.errors import PolicyError


@pytest.fixture
async def there(sqlite_path: Path) -> AsyncIterator[Watching]:
    """A file with a table of users and an outbox."""
    async with Pool(f"sqlite:///{sqlite_path}", foreign_keys=True) as pool:
        await pool.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, tenant TEXT)")
        watching = Watching(pool)
        await watching.open()
        yield watching


class TestSqlite(TriggerContract):
    replacing = 6
    removing = 3


async def test_every_statement_names_old_and_new_rows(there: Watching) -> None:
    """INSERT, UPDATE, upserts and DELETE write what both versions of each row name."""
    execute = there.pool.execute
    await there.watch("users", "user:{id}", "tenant:{tenant}", keys=("k{id}",))
    assert await execute("INSERT INTO users VALUES (1, 'a', 'x'), (2, 'b', 'x')") == 2
    assert await there.bodies() == [
        {"k": [f"k{n}"], "g": ["tenant:x", f"user:{n}"]} for n in (1, 2)
    ]
    assert await execute("UPDATE users SET id = 3, tenant = 'y' WHERE id = 2") == 1
    assert await there.names() == ["tenant:x", "tenant:y", "user:2", "user:3"]
    await execute("INSERT INTO users VALUES (1, 'c', 'z') ON CONFLICT DO UPDATE SET name = 'c'")
    assert set(await there.names()) == {"tenant:x", "user:1"}
    await execute("DELETE FROM users")  # without WHERE, which is SQLite's TRUNCATE
    assert await there.names() == ["tenant:x", "tenant:y", "user:1", "user:3"]
    await execute("UPDATE users SET name = 'nobody'")
    assert await there.bodies() == []


async def test_a_row_is_as_the_relay_wants_it(there: Watching) -> None:
    """A row carries the cache's name, no source, and the time it was written."""
    await there.watch("users", "user:{id}", name="it's")
    before = time.time()
    await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    row = await there.pool.fetchrow("SELECT namespace, source, at FROM tiercache_outbox")
    assert row is not None
    assert (row["namespace"], row["source"]) == ("it's", None)
    assert before - 0.01 <= row["at"] <= time.time() + 0.01


async def test_another_program_is_heard(there: Watching, sqlite_path: Path) -> None:
    """A connection that knows nothing of us writes the same."""
    await there.watch("users", "user:{id}")
    other = sqlite3.connect(sqlite_path)
    with other:
        assert other.execute("INSERT INTO users VALUES (7, 'a', 'x')").lastrowid == 7
    other.close()
    assert await there.names() == ["user:7"]


async def test_cascades_are_seen(there: Watching) -> None:
    """What a foreign key deletes is named as well."""
    await there.pool.execute(
        "CREATE TABLE posts (id INTEGER, author REFERENCES users (id) ON DELETE CASCADE)"
    )
    await there.watch("posts", "post:{id}")
    await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    await there.pool.execute("INSERT INTO posts VALUES (7, 1)")
    await there.pool.execute("DELETE FROM users")
    assert await there.names() == ["post:7", "post:7"]


# --- rows that make room ---------------------------------------------------------------------


NUMBERED = "id INTEGER PRIMARY KEY, mail TEXT UNIQUE)"


@pytest.mark.parametrize(
    ("table", "change", "names"),
    [
        (NUMBERED, "REPLACE INTO t VALUES (9, 'a')", "19"),
        (NUMBERED, "REPLACE INTO t VALUES (1, 'b')", "12"),
        (NUMBERED, "REPLACE INTO t VALUES (2, 'c')", "2"),
        (NUMBERED, "UPDATE OR REPLACE t SET mail = 'a'", "12"),
        ("id INT, mail TEXT COLLATE NOCASE UNIQUE)", "REPLACE INTO t VALUES (9, 'A')", "19"),
        ("id TEXT UNIQUE, mail TEXT, UNIQUE (mail, id))", "REPLACE INTO t VALUES (1, 'z')", "1"),
        ("id INT, mail TEXT PRIMARY KEY) WITHOUT ROWID", "REPLACE INTO t VALUES (9, 'b')", "29"),
    ],
)
async def test_rows_that_are_thrown_out(
    there: Watching, table: str, change: str, names: str
) -> None:
    """What REPLACE throws out of a unique key fires no trigger of its own, and is named."""
    await there.pool.execute(f"CREATE TABLE t ({table}")
    await there.watch("t", "{id}")
    await there.pool.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    await there.bodies()
    await there.pool.execute(change)
    assert "".join(sorted(set(await there.names()))) == names


async def test_no_trigger_that_is_of_no_use(there: Watching) -> None:
    """Where rows that meet name the same, nothing looks for them."""
    assert len(await there.watch("users", "user:{id}")) == 3
    assert len(await there.watch("users", "user:{id}", "tenant:{tenant}")) == 8
    assert len(await there.watch("users", "user:{id}")) == 8
    assert await there.missing("users", "user:{id}") == ()


# --- texts -----------------------------------------------------------------------------------


async def test_the_texts_are_those_of_python(there: Watching) -> None:
    """Values that have a text are written as the template writes what Python reads."""
    kinds = {"a": "INTEGER", "b": "TEXT", "c": "BOOLEAN", "d": "DATE", "e": "", "f": "VARCHAR(9)"}
    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    await there.pool.execute(f"CREATE TABLE things (id INTEGER, {columns})")
    templates = [f"{{id}}:{name}={{{name}}}'\\{{{{}}}}$1" for name in kinds]
    await there.watch("things", *templates)
    lot = random.Random(20261121)
    edges: list[Any] = [
        None, 0, 1, -1, 2**63 - 1, -(2**63), True, False, "", "0", "007", "it's", '"', "a\nb",
        "None", "Grüße 🐘", "\x01", "2024-02-29", "2024-02-29 01:02:03", "\\",
        "$1 ?1 %s {x}", "1e3x",
    ]  # fmt: skip

    def value() -> Any:
        return lot.choice(
            [
                lot.choice(edges),
                lot.randrange(-(2**63), 2**63),
                "".join(chr(lot.randrange(1, 0x2FF)) for _ in range(lot.randrange(9))),
            ]
        )

    rows = [(n, *(value() for _ in kinds)) for n in range(500)]
    rows += [(1000 + n, *(edge for _ in kinds)) for n, edge in enumerate(edges)]
    await there.pool.executemany("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7)", rows)
    assert await there.names() == await there.rendered("things", *templates)


@pytest.mark.parametrize("value", [1.5, b"bytes", 1e300])
async def test_a_value_without_a_text_clears(there: Watching, value: Any) -> None:
    """A float or bytes in a column that is meant for texts: nobody can tell what was cached."""
    await there.watch("users", "user:{name}")
    await there.pool.execute("CREATE TABLE loose (x)")
    await there.watch("loose", "x:{x}")
    await there.pool.execute("INSERT INTO loose VALUES ($1)", value)
    await there.pool.execute("UPDATE loose SET x = 'fine'")
    assert await there.bodies() == [{"a": 1}, {"a": 1}]
    await there.pool.execute("UPDATE loose SET x = 'too'")
    assert await there.names() == ["x:fine", "x:too"]


async def test_names_are_compared_as_bytes(there: Watching) -> None:
    """Two texts that a collation takes for one are two tags."""
    await there.pool.execute("CREATE TABLE words (a TEXT COLLATE NOCASE)")
    await there.watch("words", "{a}")
    await there.pool.execute("INSERT INTO words VALUES ('A')")
    await there.pool.execute("UPDATE words SET a = 'a'")
    assert await there.names() == ["A", "A", "a"]


@pytest.mark.parametrize("kind", ["REAL", "double precision", "FLOAT", "BLOB"])
async def test_a_column_without_the_text_of_python_is_refused(there: Watching, kind: str) -> None:
    """The refusal names the column, its type, those that would do, and the way out."""
    await there.pool.execute(f"CREATE TABLE odd (id INT, x {kind})")
    with pytest.raises(KeyTemplateError, match=r"\{x\}.*type .* \(id\).*generated column"):
        await there.watch("odd", "odd:{x}")


async def test_a_generated_column_is_the_way_out(there: Watching) -> None:
    """A column with the text is as good as any."""
    await there.pool.execute(
        "CREATE TABLE odd (x REAL, t TEXT GENERATED ALWAYS AS (printf('%.2f', x)) STORED)"
    )
    await there.watch("odd", "odd:{t}")
    await there.pool.execute("INSERT INTO odd VALUES (1.5)")
    assert await there.names() == ["odd:1.50"]


# --- tables ----------------------------------------------------------------------------------


async def test_names_that_need_quotes(there: Watching) -> None:
    """Odd names of tables and columns, and odd texts, are quoted where they stand."""
    table = '"it""s ); DROP TABLE users; -- $1"'
    await there.pool.execute(f'CREATE TABLE {table} (id INT UNIQUE, "größeR" TEXT, "a b" INT)')
    template = "' \\' %s {{}} $1 {größeR}"
    await there.watch(table, template)
    await there.pool.execute(f"INSERT INTO {table} VALUES (1, 'it''s \\', 2)")
    assert await there.names() == ["' \\' %s {} $1 it's \\"]
    assert await there.missing(table, template) == ()
    with pytest.raises(KeyTemplateError, match="a b"):
        await there.watch(table, "{a b}")


async def test_names_are_read_as_sql_reads_them(there: Watching) -> None:
    """Names of tables are without case, columns are as they were declared."""
    await there.watch("USERS", "user:{id}")
    assert await there.missing('main."users"', "user:{id}") == ()
    with pytest.raises(KeyTemplateError, match=r"unknown field \{ID\}: the names are id"):
        await there.watch("users", "user:{ID}")
    with pytest.raises(PolicyError, match="another database"):
        await there.watch("temp.users", "user:{id}")
    with pytest.raises(PolicyError, match="no such table"):
        await there.watch("nobody", "user:{id}")


@pytest.mark.parametrize(
    "sql", ["CREATE VIEW odd AS SELECT * FROM users", "create virtual table odd using fts5(x)"]
)
async def test_what_has_no_rows_of_its_own_is_refused(there: Watching, sql: str) -> None:
    """Views and virtual tables cannot be watched, and the error says so."""
    await there.pool.execute(sql)
    with pytest.raises(PolicyError, match="view|virtual"):
        await there.watch("odd", "odd")


# --- again, other, newer ---------------------------------------------------------------------


async def test_an_administrator_can_do_it(there: Watching, sqlite_path: Path) -> None:
    """After another program has run all statements, once or twice, nothing is missing."""
    watched = Watched("app", "users", ("user:{id}", "it's {tenant}"))
    statements = await there.run(there.dialect.every(watched))
    other = sqlite3.connect(sqlite_path)
    for _ in range(2):
        other.executescript("".join(f"{sql};\n" for sql in statements))
    other.close()
    assert await there.run(there.dialect.missing(watched)) == ()
