"""What every use of SQLite shares: opening, parameters, rows, patience with other processes."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable, ItemsView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from poolkit._session import read, split
from poolkit.drivers._numbered import MISTAKEN, NamingConnection, Numbered

T = TypeVar("T")

_PARAMETER = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)"""
    r"""|(?<![\w$])\$(\d+)""",
    re.DOTALL,
)
_rewritten: dict[str, str] = {}
_REWRITTEN_AT_MOST = 2048


@dataclass(frozen=True, kw_only=True, slots=True)
class SQLiteOptions:
    """How to open a database: the pragmas of every connection, and how long to be patient.

    ``busy_timeout`` (seconds) bounds the wait for another process that writes, ``writer_timeout``
    the wait for one's turn in this process. ``cache_size`` and ``mmap_size`` are bytes.
    ``optimize`` refreshes the planner's statistics when the pool closes. ``pragmas`` are further
    ones, set last.
    """

    journal_mode: str = "WAL"
    synchronous: str = "NORMAL"
    cache_size: int = 16 * 2**20
    mmap_size: int = 128 * 2**20
    temp_store: str = "MEMORY"
    foreign_keys: bool = False
    busy_timeout: float = 5.0
    writer_timeout: float = 30.0
    optimize: bool = True
    pragmas: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what SQLite would ignore without a word."""
        _one_of("journal_mode", self.journal_mode, "WAL DELETE TRUNCATE PERSIST MEMORY OFF")
        _one_of("synchronous", self.synchronous, "OFF NORMAL FULL EXTRA")
        _one_of("temp_store", self.temp_store, "DEFAULT FILE MEMORY")
        for name in ("cache_size", "mmap_size", "busy_timeout", "writer_timeout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name}={value!r}: expected a number, 0 or more")
        for name in self.pragmas:
            if not re.fullmatch(r"\w+(?:\.\w+)?", name):
                raise ValueError(f"pragmas: {name!r} is no name of a pragma")

    def statements(self) -> list[str]:
        """Return the PRAGMA statements of a new connection."""
        return [
            f"PRAGMA synchronous={self.synchronous}",
            f"PRAGMA cache_size=-{self.cache_size // 1024}",
            f"PRAGMA mmap_size={self.mmap_size}",
            f"PRAGMA temp_store={self.temp_store}",
            f"PRAGMA foreign_keys={int(self.foreign_keys)}",
            *(f"PRAGMA {name}={value}" for name, value in self.pragmas.items()),
        ]


def _one_of(name: str, value: str, words: str) -> None:
    if str(value).upper() not in words.split():
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(words.split())}")


class LiteRow(sqlite3.Row):
    """``row["x"]``, ``row[0]``, ``dict(row)``, and the methods of a mapping that rows have.

    A name that is no column raises IndexError: the look-up is sqlite3's own, in C.
    """

    def __repr__(self) -> str:
        return f"<Row {' '.join(f'{name}={value!r}' for name, value in self.items())}>"

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or the default if there is none of that name."""
        try:
            return self[name]
        except IndexError:
            return default

    def items(self) -> ItemsView[str, Any]:
        """Return (name, value) pairs."""
        return dict(self).items()

    def values(self) -> tuple[Any, ...]:
        """Return the values."""
        return tuple(self)


def open_database(path: str, options: SQLiteOptions) -> sqlite3.Connection:
    """Open a connection in autocommit, usable from any one thread at a time."""
    connection = sqlite3.connect(
        path,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=NamingConnection if MISTAKEN else sqlite3.Connection,
    )
    try:
        connection.row_factory = LiteRow
        mode = f"PRAGMA journal_mode={options.journal_mode}"
        patiently(lambda: connection.execute(mode).fetchone(), options.busy_timeout)
        for statement in options.statements():
            connection.execute(statement).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def rewrite(sql: str) -> str:
    """Return the statement with ``$1`` as ``?1``, which SQLite binds by number.

    Left as they are, SQLite would take ``$1`` for a name and bind in order of appearance.
    """
    known = _rewritten.get(sql)
    if known is None:
        if len(_rewritten) >= _REWRITTEN_AT_MOST:
            _rewritten.clear()
        known = _PARAMETER.sub(lambda match: f"?{match[1]}" if match[1] else match[0], sql)
        if MISTAKEN and known != sql:
            numbers = [int(match[1]) for match in _PARAMETER.finditer(sql) if match[1]]
            known = Numbered(known, max(numbers))
        _rewritten[sql] = known
    return known


def execute(connection: sqlite3.Connection, sql: str, args: Sequence[Any]) -> int:
    """Run a statement, or several if there are no arguments; return the rows changed."""
    if not args and read(sql).statements > 1:
        return _execute_script(connection, sql)
    return changed(connection.execute(rewrite(sql), args))


def changed(cursor: sqlite3.Cursor) -> int:
    """Return how many rows a statement changed."""
    if cursor.description is not None:
        cursor.fetchall()  # RETURNING: the count is right after the last row
    return max(cursor.rowcount, 0)


def _execute_script(connection: sqlite3.Connection, sql: str) -> int:
    count, statement = 0, ""
    for piece in split(sql):
        statement += piece
        if sqlite3.complete_statement(statement):  # the body of a trigger has semicolons, too
            count = max(connection.execute(statement).rowcount, 0)
            statement = ""
    if statement.strip():
        count = max(connection.execute(statement).rowcount, 0)
    return count


def close(connection: sqlite3.Connection) -> None:
    """Close a connection, rolling back first what is open.

    SQLite itself would put that off, and keep the lock, while a statement is alive anywhere: in a
    cursor that the traceback of some error still holds.
    """
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # closing is what is left
    finally:
        connection.close()


def execute_many(connection: sqlite3.Connection, sql: str, args: Sequence[Sequence[Any]]) -> None:
    """Run a statement for each of the argument sequences, all of them or none."""
    own = not connection.in_transaction
    connection.execute("BEGIN IMMEDIATE" if own else "SAVEPOINT poolkit_many")
    try:
        connection.executemany(rewrite(sql), args)
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK" if own else "ROLLBACK TO SAVEPOINT poolkit_many")
            if not own:
                connection.execute("RELEASE SAVEPOINT poolkit_many")
        raise
    connection.execute("COMMIT" if own else "RELEASE SAVEPOINT poolkit_many")


def is_busy(error: BaseException) -> bool:
    """Whether another process has the lock, and waiting helps."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def is_readonly(error: BaseException) -> bool:
    """Whether a write was refused because the connection is set to read only."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY


def patiently(
    job: Callable[[], T], limit: float, given_up: Callable[[], bool] = lambda: False
) -> T:
    """Run the job, again while another process has the lock, for ``limit`` seconds at most.

    The pauses grow from 1 to 50 ms and are drawn by lot, so that processes do not march in step.
    """
    deadline, pause = 0.0, 0.001
    while True:
        try:
            return job()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or error.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise
            now = time.monotonic()
            deadline = deadline or now + limit
            if now >= deadline or given_up():
                raise
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311  a lot, not a secret
        pause = min(pause * 1.5, 0.05)
