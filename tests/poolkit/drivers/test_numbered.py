"""Numbered parameters on Pythons that take them for names."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from poolkit import Pool
from poolkit.drivers import _lite
from poolkit.drivers._numbered import NamingConnection, NamingCursor, Numbered


def test_numbered_parameters_are_bound_by_name() -> None:
    """Each by its number, however often and in whatever order it stands there."""
    connection = sqlite3.connect(":memory:", factory=NamingConnection)
    assert connection.execute(Numbered("SELECT ?2, ?1, ?1", 2), ("a", "b")).fetchone() == (
        "b",
        "a",
        "a",
    )
    assert connection.execute("SELECT ?, ?", (1, 2)).fetchone() == (1, 2)
    created = connection.execute("CREATE TABLE t (x, y)")
    filled = connection.executemany(Numbered("INSERT INTO t VALUES (?2, ?1)", 2), [(1, 2), (3, 4)])
    assert type(created) is type(filled) is NamingCursor
    connection.cursor().executemany("INSERT INTO t VALUES (?, ?)", [(5, 6)])
    assert connection.execute("SELECT * FROM t").fetchall() == [(2, 1), (4, 3), (5, 6)]
    for nameless in ("execute", "executemany"):
        parameters: tuple[object, ...] = (1,) if nameless == "execute" else ((1,),)
        with pytest.raises(sqlite3.ProgrammingError, match="has no name"):
            getattr(connection, nameless)(Numbered("INSERT INTO t (x) VALUES (?)", 1), parameters)
    connection.close()


@pytest.mark.parametrize("mistaken", [False, True])
async def test_a_wrong_number_of_parameters(
    tmp_path: Path, mistaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many or too few are refused, however they are bound."""
    monkeypatch.setattr(_lite, "MISTAKEN", mistaken or _lite.MISTAKEN)
    monkeypatch.setattr(_lite, "_rewritten", {})
    async with Pool(f"sqlite:///{tmp_path}/t.db") as pool:
        for parameters in ((), (1, 2)):
            with pytest.raises(sqlite3.ProgrammingError, match="uses 1, and there are"):
                await pool.fetchval("SELECT $1", *parameters)


async def test_a_pool_on_such_a_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements of every kind, with the caller's own kind of parameters."""
    monkeypatch.setattr(_lite, "MISTAKEN", True)
    monkeypatch.setattr(_lite, "_rewritten", {})
    async with Pool(f"sqlite:///{tmp_path}/t.db") as pool:
        await pool.execute("CREATE TABLE t (x, y)")
        await pool.execute("INSERT INTO t VALUES ($2, $1)", 1, 2)
        await pool.execute("INSERT INTO t VALUES (?, ?)", 3, 4)
        async with pool.transaction() as tx:
            await tx.executemany("INSERT INTO t VALUES ($1, $1 + $2)", [(5, 6), (7, 8)])
            assert await tx.fetchval("SELECT count(*) FROM t WHERE x >= $1", 5) == 2
        rows = await pool.fetch("SELECT x, y FROM t WHERE x > $1 ORDER BY x", 1)
    assert [tuple(row) for row in rows] == [(2, 1), (3, 4), (5, 11), (7, 15)]
    assert all(
        isinstance(text, _lite.Numbered) for text in _lite._rewritten.values() if "?1" in text
    )
