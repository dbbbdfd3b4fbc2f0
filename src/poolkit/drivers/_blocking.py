"""SQLite in the caller's thread, for those who have no event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from poolkit._session import Kind, read
from poolkit.drivers._gate import Ticket, gate_of
from poolkit.drivers._lite import (
    LiteRow,
    SQLiteOptions,
    execute,
    execute_many,
    is_busy,
    is_readonly,
    open_database,
    patiently,
    rewrite,
)
from poolkit.errors import AcquireTimeout, PoolClosed, TransactionError

T = TypeVar("T")

_faces: weakref.WeakSet[SQLiteSync] = weakref.WeakSet()


class SQLiteSync:
    """A database file, usable from any number of threads at once.

    Each statement, or transaction, has a connection of its own while it runs; connections are kept
    for the next. Writers of the whole process take turns, those of event loops included.
    """

    def __init__(
        self, path: str | Path, options: SQLiteOptions | None = None, *, keep: object = None
    ) -> None:
        self.path = str(path)
        self.options = options or SQLiteOptions()
        self._keep = keep
        """Whatever has to live as long as this does."""
        self._closed = False
        self._inherited: list[object] = []
        """The connections of a parent process: closing them here would drop its locks."""
        self._begin()
        _faces.add(self)

    def _begin(self) -> None:
        self._gate = gate_of(self.path)
        # Apart: to turn a reader into a writer makes SQLite forget every prepared statement.
        self._spare: dict[bool, list[sqlite3.Connection]] = {False: [], True: []}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; return the number of rows it changed."""
        return self._run(sql, lambda connection: execute(connection, sql, args))

    def executemany(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of the argument sequences, all of them or none."""
        many = [tuple(row) for row in args]
        self._run(sql, lambda connection: execute_many(connection, sql, many), writes=True)

    def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Return all rows."""
        text = rewrite(sql)
        if read(sql).kind is Kind.READ:
            # The usual case, by itself: what `_run` is prepared for costs as much as a point read.
            connection = self._take(writable=False)
            try:
                return connection.execute(text, args).fetchall()
            except sqlite3.OperationalError as error:
                if not (is_busy(error) or is_readonly(error)):
                    raise
            finally:
                self._give_back(connection, writable=False)
        return self._run(sql, lambda connection: connection.execute(text, args).fetchall())

    def fetchrow(self, sql: str, *args: Any) -> LiteRow | None:
        """Return the first row."""
        return self._run(sql, lambda connection: _first(connection, sql, args))

    def fetchval(self, sql: str, *args: Any) -> Any:
        """Return the first value of the first row; None if there is no row."""
        row = self.fetchrow(sql, *args)
        return None if row is None else row[0]

    @contextmanager
    def transaction(self, *, readonly: bool = False) -> Iterator[SyncTransaction]:
        """Commit when the block ends, roll back when it raises."""
        limit = self.options.busy_timeout
        ticket = None if readonly else self._enter()
        try:
            with self._connection(writable=not readonly) as connection:
                begin = "BEGIN" if readonly else "BEGIN IMMEDIATE"
                patiently(lambda: connection.execute(begin), limit)
                try:
                    yield SyncTransaction(connection)
                    patiently(lambda: connection.execute("COMMIT"), limit)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        finally:
            if ticket is not None:
                self._gate.leave(ticket)

    def close(self) -> None:
        """Close every connection; one in use is closed when its user is done."""
        self._closed = True
        self._close_spare()

    def _close_spare(self) -> None:
        for spare in self._spare.values():
            while spare:
                try:
                    connection = spare.pop()
                except IndexError:
                    break  # another thread does the same
                connection.close()

    def _run(self, sql: str, work: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        limit = self.options.busy_timeout
        if not writes and read(sql).kind is Kind.READ:
            try:
                with self._connection(writable=False) as connection:
                    return patiently(lambda: work(connection), limit)
            except sqlite3.OperationalError as error:
                if not is_readonly(error):
                    raise
        ticket = self._enter()
        try:
            with self._connection(writable=True) as connection:
                return patiently(lambda: work(connection), limit)
        finally:
            self._gate.leave(ticket)

    @contextmanager
    def _connection(self, *, writable: bool) -> Iterator[sqlite3.Connection]:
        connection = self._take(writable=writable)
        try:
            yield connection
        finally:
            self._give_back(connection, writable=writable)

    def _take(self, *, writable: bool) -> sqlite3.Connection:
        if self._closed:
            raise PoolClosed(f"the SQLite database {self.path!r} was closed here")
        try:
            return self._spare[writable].pop()
        except IndexError:
            pass
        connection = open_database(self.path, self.options)
        if not writable:
            connection.execute("PRAGMA query_only=1")
        return connection

    def _give_back(self, connection: sqlite3.Connection, *, writable: bool) -> None:
        """Spare a connection. Lists of spare ones need no lock: who is late to `close` closes."""
        self._spare[writable].append(connection)
        if self._closed:
            self._close_spare()

    def _enter(self) -> Ticket:
        holder, me = self._gate.holder, threading.get_ident()
        if holder is not None and holder.thread == me:
            raise TransactionError(
                f"a transaction that writes to {self.path!r} is open in this thread, or in the "
                f"event loop that runs in it: waiting for it here would wait for ever; use it"
            )
        turn = threading.Event()
        looping = asyncio._get_running_loop() is not None
        ticket = self._gate.request(me, turn.set, urgent=looping)
        limit = self.options.writer_timeout
        try:
            if ticket.granted or turn.wait(limit):
                return ticket
        except BaseException:
            self._gate.leave(ticket)
            raise
        self._gate.leave(ticket)
        raise AcquireTimeout(
            f"the writer of the SQLite database {self.path!r} did not come free in {limit:g} s: "
            f"keep transactions short, or raise writer_timeout",
            timeout=limit,
        )


def _after_fork() -> None:
    """Give the child faces without connections, and with a lock that nobody holds."""
    for face in list(_faces):
        face._inherited.append(face._spare)
        face._begin()


os.register_at_fork(after_in_child=_after_fork)


class SyncTransaction:
    """An open transaction in the caller's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, *args: Any) -> int:
        """Run a statement; return the number of rows it changed."""
        return execute(self._connection, sql, args)

    def executemany(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each of the argument sequences, all of them or none."""
        execute_many(self._connection, sql, [tuple(row) for row in args])

    def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Return all rows."""
        return self._connection.execute(rewrite(sql), args).fetchall()

    def fetchrow(self, sql: str, *args: Any) -> LiteRow | None:
        """Return the first row."""
        return _first(self._connection, sql, args)

    def fetchval(self, sql: str, *args: Any) -> Any:
        """Return the first value of the first row; None if there is no row."""
        row = self.fetchrow(sql, *args)
        return None if row is None else row[0]


def _first(connection: sqlite3.Connection, sql: str, args: Sequence[Any]) -> LiteRow | None:
    cursor = connection.execute(rewrite(sql), args)
    row: LiteRow | None = cursor.fetchone()
    cursor.close()
    return row
