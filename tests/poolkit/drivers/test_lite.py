"""What every use of SQLite shares."""

from pathlib import Path

from poolkit.drivers._lite import SQLiteOptions, close, open_database


def test_closing_rolls_back_at_once(sqlite_path: Path) -> None:
    """An open transaction ends with its connection, even if a cursor of it is still alive."""
    one, other = (open_database(str(sqlite_path), SQLiteOptions()) for _ in range(2))
    one.execute("CREATE TABLE t (x)")
    one.execute("BEGIN IMMEDIATE")
    one.execute("INSERT INTO t VALUES (1), (2)")
    alive = one.execute("SELECT x FROM t")
    alive.fetchone()
    close(one)
    other.execute("BEGIN IMMEDIATE")
    assert other.execute("SELECT count(*) FROM t").fetchone()[0] == 0
    close(other)
    del alive  # only now
