"""What is read from the text of a statement."""

import pytest

from poolkit._session import Dirt, Kind, read, split

CLEAN = [
    "SELECT 1",
    "  select * from users where name = 'LISTEN; SET x'",
    "INSERT INTO t VALUES ($1) RETURNING id",
    "UPDATE t SET name = $1",
    "DELETE FROM t",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "-- SET x = 1\nSELECT 1",
    "/* LISTEN a */ SELECT 1",
    "BEGIN",
    "COMMIT",
    "SAVEPOINT a",
    "SET LOCAL statement_timeout = 1",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SELECT pg_advisory_xact_lock(1)",
    "CREATE TABLE t (temperature int)",
    "DECLARE c CURSOR FOR SELECT 1",
    "NOTIFY a, 'b'",
    "PRAGMA table_info(t)",
    "PRAGMA user_version",
    "SELECT $tag$ SET x = 1 $tag$",
    r"SELECT E'it\'s SET'",
]
DIRTY = [
    ("SET search_path = a", Dirt.SETTINGS),
    ("RESET ALL", Dirt.SETTINGS),
    ("SELECT set_config('a.b', '1', false)", Dirt.SETTINGS),
    ("PRAGMA foreign_keys = ON", Dirt.SETTINGS),
    ("ATTACH 'x' AS y", Dirt.SETTINGS),
    ("LISTEN a", Dirt.LISTENING),
    ("UNLISTEN *", Dirt.LISTENING),
    ("SELECT pg_advisory_lock(1)", Dirt.LOCKS),
    ("SELECT pg_try_advisory_lock(1)", Dirt.LOCKS),
    ("SELECT pg_advisory_lock_shared(1)", Dirt.LOCKS),
    ("CREATE TEMP TABLE t (x int)", Dirt.TEMPORARY),
    ("create temporary table t (x int)", Dirt.TEMPORARY),
    ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", Dirt.TEMPORARY),
    ("SELECT 1 AS x INTO TEMP t", Dirt.TEMPORARY),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", Dirt.CURSORS),
    ("PREPARE p AS SELECT 1", Dirt.PREPARED),
    ("DEALLOCATE ALL", Dirt.PREPARED),
    ("SELECT 1; SET x = 1", Dirt.SETTINGS),
]


@pytest.mark.parametrize("sql", CLEAN)
def test_plain_statements_are_clean(sql: str) -> None:
    """What leaves nothing behind needs no reset."""
    assert read(sql).dirt == Dirt.NONE


@pytest.mark.parametrize(("sql", "dirt"), DIRTY)
def test_what_stays_is_seen(sql: str, dirt: Dirt) -> None:
    """What stays in the session is seen as what it is."""
    assert read(sql).dirt == dirt


@pytest.mark.parametrize("sql", ["DO $$ BEGIN NULL; END $$", "CALL p()", "FROBNICATE", ""])
def test_what_is_not_understood_is_dirt(sql: str) -> None:
    """Text that is not known to be harmless is taken for harm; no statement does none."""
    assert bool(read(sql).dirt) is bool(sql)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT 1", Kind.READ),
        ("WITH a AS (SELECT 1) SELECT * FROM a", Kind.READ),
        ("(SELECT 1) UNION (SELECT 2)", Kind.READ),
        ("SELECT * FROM t FOR UPDATE", Kind.OTHER),
        ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", Kind.OTHER),
        ("INSERT INTO t VALUES (1)", Kind.CHANGE),
        ("REPLACE INTO t VALUES (1)", Kind.CHANGE),
        ("UPDATE t SET x = 1", Kind.CHANGE),
        ("CREATE TABLE t (x)", Kind.OTHER),
        ("ROLLBACK", Kind.CONTROL),
        ("SELECT 1; SELECT 2", Kind.OTHER),
    ],
)
def test_kinds(sql: str, kind: Kind) -> None:
    """A statement is known for what it is for."""
    assert read(sql).kind is kind


def test_split_keeps_quotes_whole() -> None:
    """Semicolons in literals, names and comments end nothing."""
    sql = "INSERT INTO t VALUES ('a;b'); -- c;d\nSELECT \";\" ; "
    assert [piece.strip() for piece in split(sql)] == [
        "INSERT INTO t VALUES ('a;b');",
        '-- c;d\nSELECT ";" ;',
    ]
