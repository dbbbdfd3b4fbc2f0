"""The connections of the blocking face: who spares them, and who closes them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolkit.drivers import _blocking
from poolkit.drivers._blocking import SQLiteSync
from poolkit.errors import PoolClosed


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that are opened."""
    opened: list[sqlite3.Connection] = []
    open_database = _blocking.open_database

    def noted(*args: object) -> sqlite3.Connection:
        opened.append(open_database(*args))  # type: ignore[arg-type]
        return opened[-1]

    monkeypatch.setattr(_blocking, "open_database", noted)
    return opened


@pytest.fixture
def face(sqlite_path: Path, opened: list[sqlite3.Connection]) -> Iterator[SQLiteSync]:
    """A face with a table of one row, and one connection: the one that made it."""
    with SQLiteSync(sqlite_path) as face:
        face.execute("CREATE TABLE t AS SELECT 1 AS a")
        yield face


def is_closed(connection: sqlite3.Connection) -> bool:
    """Whether a connection refuses to work because it was closed."""
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


def test_one_connection_serves_reads_in_a_row(
    face: SQLiteSync, opened: list[sqlite3.Connection]
) -> None:
    """A connection is spared for the next read, also by one that fails."""
    assert face.fetch("SELECT a FROM t")[0][0] == 1
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        face.fetch("SELECT a FROM nowhere")
    assert face.fetch("SELECT a FROM t WHERE a = $1", 1)[0][0] == 1
    assert len(opened) == 2


def test_what_only_seems_to_read_is_run_by_a_writer(face: SQLiteSync) -> None:
    """A statement that SQLite refuses on a reading connection is run again on a writing one."""
    sql = "WITH x AS (SELECT 2 AS a) INSERT INTO t SELECT a FROM x RETURNING a"
    assert [row[0] for row in face.fetch(sql)] == [2]
    assert [row[0] for row in face.fetch("SELECT a FROM t ORDER BY a")] == [1, 2]


def test_closing_waits_for_nobody_and_forgets_nobody(
    face: SQLiteSync, opened: list[sqlite3.Connection]
) -> None:
    """A connection in use when the face is closed does its work and is closed by who used it."""
    started, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with face.transaction() as tx:
            started.set()
            assert go_on.wait(10)
            tx.execute("INSERT INTO t VALUES (2)")

    thread = threading.Thread(target=write)
    thread.start()
    assert started.wait(10)
    face.fetch("SELECT a FROM t")
    face.close()
    with pytest.raises(PoolClosed, match="was closed here"):
        face.fetch("SELECT a FROM t")
    go_on.set()
    thread.join(10)
    assert len(opened) == 2
    assert all(map(is_closed, opened))
    with SQLiteSync(face.path) as other:
        assert len(other.fetch("SELECT a FROM t")) == 2


def test_a_child_process_opens_its_own(face: SQLiteSync, opened: list[sqlite3.Connection]) -> None:
    """After a fork the spare connections stay the parent's, open and untouched by the child."""
    face.fetch("SELECT a FROM t")
    child = os.fork()
    if child == 0:
        try:
            face.fetch("SELECT a FROM t")
            face.close()
            writer, reader, own = opened
            fine = is_closed(own) and not is_closed(writer) and not is_closed(reader)
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert face.fetch("SELECT a FROM t")[0][0] == 1
    assert len(opened) == 2
