"""The triggers of PostgreSQL: what a statement writes into the outbox, and who may have it so."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from poolkit import Pool
from tests.tiercache._sql.triggers import TriggerContract
from tests.tiercache._sql.watching import Watching
from tiercache import KeyTemplateError
from tiercache._sql.triggers import Watched
from tiercache.errors import PolicyError


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Pool]:
    """A pool on a new database with a table of users."""
    async with Pool(postgres_dsn, max_size=4) as pool:
        await pool.execute("CREATE TABLE users (id int PRIMARY KEY, name text, tenant text)")
        yield pool


@pytest.fixture
async def there(pool: Pool) -> Watching:
    """The database with an outbox."""
    watching = Watching(pool)
    await watching.open()
    return watching


class TestPostgres(TriggerContract):
    replacing = 3
    removing = 5


async def test_every_statement_names_old_and_new_rows(there: Watching) -> None:
    """INSERT, UPDATE, DELETE and MERGE write what both versions of each row name, once."""
    execute = there.pool.execute
    await there.watch("users", "user:{id}", "tenant:{tenant}", keys=("k{id}",))
    await execute("INSERT INTO users VALUES (1, 'a', 'x'), (2, 'b', 'x')")
    bodies = await there.bodies()
    assert [{kind: sorted(names) for kind, names in body.items()} for body in bodies] == [
        {"k": ["k1", "k2"], "g": ["tenant:x", "user:1", "user:2"]}
    ]
    await execute("UPDATE users SET id = 3, tenant = 'y' WHERE id = 2")
    assert await there.names() == ["tenant:x", "tenant:y", "user:2", "user:3"]
    await execute(
        "INSERT INTO users VALUES (1, 'c', 'z') ON CONFLICT (id) DO UPDATE SET name = 'c'"
    )
    assert await there.names() == ["tenant:x", "user:1"]
    await execute(
        "MERGE INTO users u USING (VALUES (1), (9)) AS v (id) ON u.id = v.id"
        " WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'n', 'n')"
    )
    assert await there.names() == ["tenant:n", "tenant:x", "user:1", "user:9"]
    await execute("DELETE FROM users")
    assert await there.names() == ["tenant:n", "tenant:y", "user:3", "user:9"]
    await execute("UPDATE users SET name = 'nobody'")
    assert await there.bodies() == []


async def test_truncate_clears(there: Watching) -> None:
    """TRUNCATE says that everything is invalid, even of an empty table."""
    await there.watch("users", "user:{id}")
    await there.pool.execute("TRUNCATE users")
    assert await there.bodies() == [{"a": 1}]


async def test_a_row_is_as_the_relay_wants_it(there: Watching) -> None:
    """A row carries the cache's name, no source, and the time it was written."""
    await there.watch("users", "user:{id}", name="it's")
    await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    row = await there.pool.fetchrow(
        "SELECT namespace, source, at <= clock_timestamp() AS past FROM tiercache_outbox"
    )
    assert row is not None
    assert dict(row) == {"namespace": "it's", "source": None, "past": True}


async def test_many_names_are_cut(there: Watching) -> None:
    """A statement over many rows writes a row of the outbox for each thousand names."""
    await there.watch("users", "user:{id}", "all")
    await there.pool.execute("INSERT INTO users SELECT n, 'a', 'x' FROM generate_series(1, 2500) n")
    bodies = await there.bodies()
    assert [len(body["g"]) for body in bodies] == [1000, 1000, 501]
    assert {name for body in bodies for name in body["g"]} == {
        "all",
        *(f"user:{n}" for n in range(1, 2501)),
    }


async def test_cascades_and_copy_are_seen(there: Watching) -> None:
    """What a foreign key deletes and what COPY brings in is named as well."""
    pool = there.pool
    await pool.execute("CREATE TABLE posts (id int, author int REFERENCES users ON DELETE CASCADE)")
    await there.watch("posts", "post:{id}")
    await pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    async with pool.acquire() as connection:
        await connection.raw.copy_records_to_table("posts", records=[(7, 1), (8, None)])
    assert await there.names() == ["post:7", "post:8"]
    await pool.execute("DELETE FROM users")
    assert await there.names() == ["post:7"]


async def test_the_bus_is_told_in_the_same_transaction(there: Watching) -> None:
    """With a channel, a statement that names something notifies, and one that does not is still."""
    await there.watch("users", "user:{id}", channel="tiercache_event")
    async with there.pool.listen("tiercache_event") as heard:
        await there.pool.execute("DELETE FROM users")
        await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
        async with asyncio.timeout(10):
            assert (await anext(heard)).payload == "outbox"
        assert await there.names() == ["user:1"]


# --- texts -----------------------------------------------------------------------------------

KINDS = {
    "a": "int2",
    "b": "int4",
    "c": "int8",
    "d": "boolean",
    "e": "text",
    "f": "varchar(40)",
    "g": "uuid",
    "h": "date",
    "i": "timestamp",
    "j": "timestamptz",
    "k": "numeric",
    "l": "numeric(30,10)",
    "m": "mood",
    "n": "even",
    "o": "truth",
    "p": "feeling",
    "q": "day",
}

EDGES: dict[str, list[Any]] = {
    "a": [0, -32768, 32767],
    "c": [-(2**63), 2**63 - 1],
    "e": ["", "None", "it's", "a\\b", '"q"', "%s {x} $1 $$", "Grüße 🐘", "new\nline", "tab\t\x01"],
    "h": [date.min, date(999, 1, 2), date(1582, 10, 10), date(9999, 12, 31)],
    "i": [
        datetime.min,
        datetime(2024, 2, 29, 23, 59, 59, 1),
        datetime(2024, 2, 29, 1, 2, 3, 500_000),
        datetime(1969, 12, 31, 23, 59, 59, 999_999),
        datetime.max,
    ],
    "k": [
        Decimal(text)
        for text in (
            *("0", "0.0", "0.000000", "0.0000000", "0.00000000", "-0.0000001", "0.0000012300"),
            *("1.50", "100", "1E+20", "10000", "1200000", "-20000", "10000.0", "0.000001"),
            *("0.00000100", "-0.00000099", "NaN", "12345678901234567890.000000000001"),
        )
    ],
    "n": [0, 4],
    "o": [True, False],
    "p": ["sad", "it's"],
}


def values(kind: str, lot: random.Random) -> Any:
    """Return a value that a column of this kind can hold."""
    if lot.random() < 0.1:
        return None
    moment = datetime(1, 1, 2) + timedelta(
        days=lot.randrange(3_650_000), microseconds=lot.choice([0, 1, 10, 1000, 123456, 500000])
    )
    digits = lot.randrange(-(10 ** lot.randrange(1, 25)), 10 ** lot.randrange(1, 25))
    makers: dict[str, Any] = {
        "a": lambda: lot.randrange(-(2**15), 2**15),
        "b": lambda: lot.randrange(-(2**31), 2**31),
        "c": lambda: lot.randrange(-(2**63), 2**63),
        "d": lambda: lot.random() < 0.5,
        "e": lambda: "".join(chr(lot.randrange(1, 0x2FF)) for _ in range(lot.randrange(9))),
        "f": lambda: "".join(lot.choice(" 'a\\%{}$") for _ in range(lot.randrange(9))),
        "g": lambda: uuid.UUID(int=lot.getrandbits(128)),
        "h": moment.date,
        "i": lambda: moment,
        "j": lambda: moment.replace(tzinfo=UTC),
        "k": lambda: Decimal(digits).scaleb(-lot.randrange(0, 25)),
        "l": lambda: Decimal(lot.randrange(-(10**6), 10**6)).scaleb(-lot.randrange(11)),
        "m": lambda: lot.choice(["sad", "OK", "it's"]),
        "n": lambda: lot.randrange(1000) * 2,
        "o": lambda: lot.random() < 0.5,
        "p": lambda: lot.choice(["sad", "OK", "it's"]),
        "q": moment.date,
    }
    return makers[kind]()


@pytest.mark.parametrize("style", ["ISO, MDY", "German, DMY"])
async def test_the_texts_are_those_of_python(there: Watching, style: str) -> None:
    """Each kind of column is written as the template writes what the driver reads."""
    pool = there.pool
    await pool.execute("CREATE TYPE mood AS ENUM ('sad', 'OK', 'it''s')")
    await pool.execute("CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0)")
    await pool.execute("CREATE DOMAIN truth AS boolean")
    await pool.execute("CREATE DOMAIN feeling AS mood")
    await pool.execute("CREATE DOMAIN workday AS date")
    await pool.execute("CREATE DOMAIN day AS workday")
    columns = ", ".join(f"{name} {kind}" for name, kind in KINDS.items())
    await pool.execute(f"CREATE TABLE things (id int, {columns})")
    templates = [f"{{id}}:{name}={{{name}}}'\\{{{{}}}}" for name in KINDS]
    await there.watch("things", *templates)
    lot = random.Random(20261121)
    rows: list[tuple[Any, ...]] = [(n, *(values(name, lot) for name in KINDS)) for n in range(200)]
    for n, name in enumerate(EDGES):
        at = 1 + list(KINDS).index(name)
        for m, edge in enumerate(EDGES[name]):
            row: list[Any] = [1000 + 100 * n + m, *[None] * len(KINDS)]
            row[at] = edge
            rows.append(tuple(row))
    marks = ", ".join(f"${n + 1}" for n in range(len(KINDS) + 1))
    async with pool.acquire() as connection:
        await connection.execute(f"SET datestyle = '{style}'")
        await connection.execute("SET timezone = 'America/New_York'")
        await connection.execute("SET standard_conforming_strings = off")
        await connection.executemany(f"INSERT INTO things VALUES ({marks})", rows)
        await connection.execute(
            "INSERT INTO things (id, h, i, j) VALUES (801, 'infinity', 'infinity', 'infinity'),"
            " (802, '-infinity', '-infinity', '-infinity')"
        )
    rendered = set(await there.rendered("things", *templates))
    assert rendered - set(await there.names()) == set()
    await pool.execute("UPDATE things SET id = id")
    named = set(await there.names())
    assert rendered - named == set()
    # Beside them, those of drivers that read whole numbers as they are.
    assert {name.partition("=")[0].partition(":")[2] for name in named - rendered} == {"k"}
    assert {f"{n}'\\{{}}" for n in (10000, -20000, 1200000, 10**20)} <= {
        name.partition("=")[2] for name in named
    }


async def test_names_are_compared_as_bytes(there: Watching) -> None:
    """Two texts that a collation takes for one are two tags, and collations can be mixed."""
    await there.pool.execute(
        "CREATE COLLATION careless"
        " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    await there.pool.execute('CREATE TABLE words (a text COLLATE careless, b text COLLATE "POSIX")')
    await there.watch("words", "{a}-{b}")
    await there.pool.execute("INSERT INTO words VALUES ('A', 'x'), ('a', 'x')")
    assert await there.names() == ["A-x", "a-x"]


ODD = "float8,real,json,jsonb,bytea,int[],interval,time,char(4),inet,money,point,xml,pair,int4range"


async def test_columns_without_the_text_of_python_are_refused(there: Watching) -> None:
    """The refusal names the column, its type, those that would do, and the way out."""
    await there.pool.execute("CREATE TYPE pair AS (a int, b int)")
    columns = ", ".join(f"x{n} {kind}" for n, kind in enumerate(ODD.split(",")))
    await there.pool.execute(f"CREATE TABLE odd (id int, {columns})")
    for n in range(len(ODD.split(","))):
        match = rf"\{{x{n}\}}.*type .* \(id\).*generated column"
        with pytest.raises(KeyTemplateError, match=match):
            await there.watch("odd", f"odd:{{x{n}}}")
    assert await there.watch("odd", "odd:{id}")


async def test_a_generated_column_is_the_way_out(there: Watching) -> None:
    """A stored column with the text is as good as any."""
    await there.pool.execute(
        "CREATE TABLE odd (x float8, t text GENERATED ALWAYS AS (x::numeric(9, 2)::text) STORED)"
    )
    await there.watch("odd", "odd:{t}")
    await there.pool.execute("INSERT INTO odd VALUES (1.5)")
    assert await there.names() == ["odd:1.50"]


PROBLEMS = {
    "u:{uid}": r"unknown field \{uid\}: the names are id, name, tenant",
    "u:{nam}": r"did you mean \{name\}",
    "u:{id.x}": "attribute",
    "u:{id:h}": "digest",
    "u:\0": "NUL",
    "u:{id": "brace",
}


async def test_templates_are_checked(there: Watching) -> None:
    """What no trigger can write is refused before anything is changed."""
    for template, problem in PROBLEMS.items():
        with pytest.raises(KeyTemplateError, match=problem):
            await there.watch("users", "fine", template)
    assert await there.unwatch("users") == ()


# --- tables ----------------------------------------------------------------------------------


async def test_names_that_need_quotes(there: Watching) -> None:
    """Odd names of schemas, tables and columns, and odd texts, are quoted where they stand."""
    pool = there.pool
    await pool.execute('CREATE SCHEMA "My ""App"""')
    await pool.execute('CREATE TABLE "My ""App""".")drop; $$"(id int, "größeR" text, "a b" int)')
    table = '"My ""App""".")drop; $$"'
    template = "$tiercache$ ' \\' %s {{}} $1 {größeR}"
    await there.watch(table, template)
    await pool.execute(f"INSERT INTO {table} VALUES (1, 'it''s \\', 2)")
    assert await there.names() == ["$tiercache$ ' \\' %s {} $1 it's \\"]
    assert await there.missing(table, template) == ()
    with pytest.raises(KeyTemplateError, match="a b"):
        await there.watch(table, "{a b}")


async def test_names_are_read_as_sql_reads_them(there: Watching) -> None:
    """Without quotes a name is folded; a table that needs them is proposed."""
    assert await there.watch("Users", "user:{id}")
    assert await there.missing('public."users"', "user:{id}") == ()
    await there.pool.execute('CREATE TABLE "Mixed" (id int)')
    with pytest.raises(PolicyError, match=r"no such table; did you mean '\"Mixed\"'"):
        await there.watch("Mixed", "m:{id}")
    for odd in ("", "a.b.c", "users; DROP TABLE users", 'users"', "a b", "1st"):
        with pytest.raises(PolicyError, match="is not the name of a table"):
            await there.watch(odd, "m:{id}")


async def test_what_has_no_rows_of_its_own_is_refused(there: Watching) -> None:
    """Views and temporary tables cannot be watched, and the error says so."""
    async with there.pool.acquire() as connection:
        there.run.connection = connection
        for sql, what in (
            ("VIEW odd1 AS SELECT * FROM users", "a view"),
            ("MATERIALIZED VIEW odd2 AS SELECT * FROM users", "a materialized view"),
            ("TEMPORARY TABLE odd3 (id int)", "temporary"),
            ("SEQUENCE odd4", "no table"),
        ):
            await connection.execute(f"CREATE {sql}")
            with pytest.raises(PolicyError, match=what):
                await there.missing(f"odd{sql.partition('odd')[2][0]}", "odd")


async def test_partitions_have_their_own(there: Watching) -> None:
    """A statement may name the table or a partition, and may move a row between two of them."""
    pool = there.pool
    await pool.execute("CREATE TABLE log (id int, day date) PARTITION BY RANGE (id)")
    await pool.execute("CREATE TABLE log1 PARTITION OF log FOR VALUES FROM (0) TO (10)")
    await pool.execute(
        "CREATE TABLE log2 PARTITION OF log FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id)"
    )
    await pool.execute("CREATE TABLE log2a PARTITION OF log2 FOR VALUES FROM (10) TO (20)")
    await there.watch("log", "log:{id}")
    await pool.execute("INSERT INTO log VALUES (1, now()), (11, now())")
    assert await there.names() == ["log:1", "log:11"]
    await pool.execute("UPDATE log SET id = 12 WHERE id = 1")
    assert await there.names() == ["log:1", "log:12"]
    await pool.execute("UPDATE log2a SET day = 'yesterday' WHERE id = 12")
    assert await there.names() == ["log:12"]
    await pool.execute("CREATE TABLE log3 PARTITION OF log FOR VALUES FROM (20) TO (30)")
    assert len(await there.watch("log", "log:{id}")) == 4
    await pool.execute("INSERT INTO log3 VALUES (21, now())")
    assert await there.names() == ["log:21"]
    await there.unwatch("log")
    await pool.execute("INSERT INTO log VALUES (22, now())")
    assert await there.bodies() == []


async def test_tables_that_inherit(there: Watching) -> None:
    """The rows of a table are also those of the tables that inherit from it."""
    await there.pool.execute("CREATE TABLE admins (level int) INHERITS (users)")
    await there.watch("users", "user:{id}")
    await there.pool.execute("INSERT INTO admins VALUES (1, 'a', 'x', 3)")
    assert await there.names() == ["user:1"]
    await there.pool.execute("UPDATE users SET name = 'b'")
    assert await there.names() == ["user:1"]


# --- again, other, newer ---------------------------------------------------------------------


async def test_again_is_nothing(there: Watching) -> None:
    """What is in place is left alone; so is what a later version has put there."""
    assert len(await there.watch("users", "user:{id}")) == 7
    assert await there.missing("users", "user:{id}") == ()


async def test_other_templates_leave_the_table_alone(there: Watching) -> None:
    """Other templates replace the text of the function: no trigger is touched."""
    await there.watch("users", "user:{id}")
    replaced = await there.watch("users", "u:{id}")
    assert [sql.split()[0] for sql in replaced] == ["CREATE", "REVOKE", "COMMENT"]
    await there.pool.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    assert await there.names() == ["u:1"]


async def test_what_somebody_changed_is_put_right(there: Watching) -> None:
    """A trigger that is off or gone, or a function that is not as it should be, is made again."""
    await there.watch("users", "user:{id}")
    name = await there.pool.fetchval("SELECT tgname FROM pg_trigger WHERE tgname LIKE '%insert'")
    function = await there.pool.fetchval(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'tiercache_watch%'"
    )
    for sql, count in (
        ("ALTER TABLE users DISABLE TRIGGER USER", 8),
        (f"DROP TRIGGER {name.removesuffix('_insert')}_update ON users", 1),
        (f"ALTER FUNCTION {function} SECURITY INVOKER", 3),
        (f"ALTER FUNCTION {function} RESET search_path", 3),
    ):
        await there.pool.execute(sql)
        assert len(await there.watch("users", "user:{id}")) == count
        assert await there.missing("users", "user:{id}") == ()


async def test_a_column_of_another_type_is_written_anew(there: Watching) -> None:
    """When the type of a column has changed, so does what is to be written."""
    await there.pool.execute("CREATE TABLE flags (id int)")
    await there.watch("flags", "flag:{id}")
    await there.pool.execute("ALTER TABLE flags ALTER id TYPE boolean USING id = 1")
    await there.watch("flags", "flag:{id}")
    await there.pool.execute("INSERT INTO flags VALUES (true)")
    assert await there.names() == ["flag:True"]


async def test_nothing_is_left(there: Watching) -> None:
    """Unwatching takes away triggers and function, also when the table has gone before."""
    count = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'tiercache_watch%'"
    await there.watch("users", "user:{id}")
    assert len(await there.unwatch("users")) == 5
    assert await there.unwatch("users") == ()
    assert await there.pool.fetchval(count) == 0
    await there.watch("users", "user:{id}")
    await there.pool.execute("DROP TABLE users")
    assert len(await there.unwatch("users")) == 1
    assert await there.pool.fetchval(count) == 0
    assert await there.unwatch("users") == ()


async def test_the_longest_names_fit(pool: Pool) -> None:
    """The longest prefix in a schema of its own gives names that are not cut."""
    await pool.execute("CREATE SCHEMA app")
    there = Watching(pool, "app." + "p" * 40)
    await there.open()
    await there.watch("users", "user:{id}")
    assert await there.missing("users", "user:{id}") == ()
    await pool.execute("TRUNCATE users")
    assert await there.bodies() == [{"a": 1}]


# --- rights ----------------------------------------------------------------------------------


@pytest.fixture
async def role(there: Watching) -> AsyncIterator[str]:
    """A role that may read and write the table, and nothing else."""
    name = f"writer_{uuid.uuid4().hex[:12]}"
    await there.pool.execute(f"CREATE ROLE {name} LOGIN")
    await there.pool.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON users TO {name}")
    yield name
    await there.pool.execute(f"DROP OWNED BY {name}")
    await there.pool.execute(f"DROP ROLE {name}")


@pytest.fixture
async def writer(role: str, postgres_dsn: str) -> AsyncIterator[Any]:
    """A connection of that role."""
    connection = await asyncpg.connect(postgres_dsn, user=role)
    yield connection
    await connection.close()


async def test_writers_need_no_right_to_the_outbox(there: Watching, writer: Any) -> None:
    """Whoever may write the table writes it; the trigger has rights of its own."""
    await there.watch("users", "user:{id}")
    await writer.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    assert await there.names() == ["user:1"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await writer.execute("INSERT INTO tiercache_outbox (namespace, body) VALUES ('app', '{}')")


async def test_nobody_else_makes_a_trigger_of_the_function(there: Watching, writer: Any) -> None:
    """A role with a table of its own cannot have the function write what it likes."""
    await there.watch("users", "user:{id}")
    function = await there.pool.fetchval(
        "SELECT proname::text FROM pg_proc WHERE proname LIKE 'tiercache_watch%'"
    )
    await writer.execute("CREATE TEMPORARY TABLE mine (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="function"):
        await writer.execute(
            "CREATE TRIGGER own AFTER INSERT ON mine REFERENCING NEW TABLE AS tiercache_new"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )


async def test_a_session_cannot_put_itself_in_the_way(there: Watching, writer: Any) -> None:
    """The search path and temporary objects of the writer do not reach into the function."""
    await there.watch("users", "user:{id}")
    await writer.execute("CREATE TEMPORARY TABLE tiercache_outbox (namespace text, body text)")
    await writer.execute(
        "CREATE FUNCTION pg_temp.json_strip_nulls(json) RETURNS json LANGUAGE sql AS"
        " $$ SELECT '{}'::json $$"
    )
    await writer.execute("SET search_path = pg_temp, public, pg_catalog")
    await writer.execute("INSERT INTO public.users VALUES (1, 'a', 'x')")
    assert await there.names() == ["user:1"]


async def test_an_administrator_can_do_it(there: Watching, writer: Any) -> None:
    """After somebody who may has run all statements, once or twice, nothing is missing."""
    watched = Watched("app", "users", ("user:{id}",))
    async with there.pool.acquire() as administrator:
        await administrator.execute("SET search_path = pg_catalog")
        for _ in range(2):
            await administrator.execute(
                "".join(f"{sql};\n" for sql in await there.run(there.dialect.every(watched)))
            )
    run = type(there.run)(writer)
    assert await run(there.dialect.missing(watched)) == ()
    await writer.execute("INSERT INTO users VALUES (1, 'a', 'x')")
    assert await there.names() == ["user:1"]
