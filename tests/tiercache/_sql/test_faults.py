"""What errors of drivers mean."""

from __future__ import annotations

import sqlite3

import asyncpg
import pytest

from tiercache._sql.faults import explain
from tiercache._sql.names import Tables

TABLES = Tables.of("tiercache")


def of_sqlite(name: str, text: str = "") -> sqlite3.OperationalError:
    """Make an error as `sqlite3` raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (asyncpg.InsufficientPrivilegeError("no"), False),
        (asyncpg.UndefinedTableError("no"), False),
        (asyncpg.DiskFullError("no"), False),
        (asyncpg.PostgresSyntaxError("no"), False),
        (asyncpg.NumericValueOutOfRangeError("no"), False),
        (asyncpg.SerializationError("no"), False),
        (asyncpg.ReadOnlySQLTransactionError("no"), True),
        (asyncpg.QueryCanceledError("no"), True),
        (asyncpg.TooManyConnectionsError("no"), True),
        (asyncpg.AdminShutdownError("no"), True),
        (asyncpg.CannotConnectNowError("no"), True),
        (asyncpg.InvalidPasswordError("no"), True),
        (asyncpg.InvalidCatalogNameError("no"), True),
        (of_sqlite("SQLITE_BUSY"), True),
        (of_sqlite("SQLITE_BUSY_SNAPSHOT"), True),
        (of_sqlite("SQLITE_READONLY"), False),
        (of_sqlite("SQLITE_READONLY_DIRECTORY"), False),
        (of_sqlite("SQLITE_FULL"), False),
        (of_sqlite("SQLITE_CANTOPEN"), True),
        (of_sqlite("SQLITE_NOTADB"), True),
        (of_sqlite("SQLITE_CORRUPT"), True),
        (of_sqlite("SQLITE_IOERR_WRITE"), True),
        (of_sqlite("SQLITE_ERROR", "near SELEC: syntax error"), False),
        (ConnectionRefusedError("no"), True),
        (TimeoutError(), True),
        (ValueError("no"), False),
    ],
)
def test_a_database_that_does_not_serve_is_told_from_a_refusal(
    error: Exception, unavailable: bool
) -> None:
    """Only the first opens a circuit."""
    assert explain(error, TABLES).unavailable is unavailable


def test_the_cause_counts() -> None:
    """A pool's error is read through to what the database said."""
    error = ConnectionError("cannot connect")
    error.__cause__ = asyncpg.InsufficientPrivilegeError("no")
    assert "GRANT" in explain(error, TABLES).advice


def test_a_lost_race_is_worth_another_try() -> None:
    """Deadlocks and serialization failures may succeed the next time."""
    assert explain(asyncpg.DeadlockDetectedError("no"), TABLES).retry
    assert explain(asyncpg.SerializationError("no"), TABLES).retry
    assert not explain(asyncpg.UniqueViolationError("no"), TABLES).retry


def test_a_missing_table_is_recognised() -> None:
    """It is worth making the schema again."""
    assert explain(asyncpg.UndefinedTableError("no"), TABLES).missing
    assert explain(of_sqlite("SQLITE_ERROR", "no such table: tiercache_tag"), TABLES).missing
    assert not explain(of_sqlite("SQLITE_ERROR", "no such column: x"), TABLES).missing


def test_a_missing_right_names_the_tables() -> None:
    """The advice can be pasted into psql."""
    advice = explain(asyncpg.InsufficientPrivilegeError("no"), Tables.of("app.cache")).advice
    assert 'ON "app".cache_entry, "app".cache_tag, "app".cache_meta' in advice
