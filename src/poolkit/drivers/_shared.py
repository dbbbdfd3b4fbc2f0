"""Point reads of many callers on few connections: what is asked in one tick is read in one go.

Reads that wait for the thread together are made in one read transaction: beginning and ending one
for each would cost more than the reading (2.2 µs against 1.4 µs). It begins after they were asked
for, so each sees whatever was committed before.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poolkit.driver import NotShareable
from poolkit.drivers._lite import is_readonly, open_database, patiently, rewrite

if TYPE_CHECKING:
    from poolkit.driver import Row
    from poolkit.drivers._crew import Job
    from poolkit.drivers._desk import Desk


class _Round:
    """Reads in a row: a connection for one thread, and what it reads for now."""

    __slots__ = ("_reader", "connection", "job")

    def __init__(self, reader: SharedReader, connection: sqlite3.Connection) -> None:
        self._reader = reader
        self.connection = connection
        self.job: Job | None = None

    def end(self) -> None:
        """End the transaction and spare the connection."""
        self._reader.end(self)


class SharedReader:
    """The readers that the callers of one loop share: one for each thread that is at it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._spare: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        """Held to say which connection works for which job, so that no other is interrupted."""
        self._rounds: set[_Round] = set()
        self._outstanding = 0
        self._empty: asyncio.Future[None] | None = None
        self._used = False

    async def fetch(self, sql: str, args: Sequence[Any], limit: int | None) -> list[Row]:
        """Return the first ``limit`` rows, or all."""
        if not self._used:
            self._used = True
            self._desk.enter()
        text = rewrite(sql)
        self._outstanding += 1
        job = self._desk.crew.submit(
            lambda job: self._read(job, text, args, limit), self._landed, self
        )
        try:
            rows: list[Row] = await job.future
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        except sqlite3.OperationalError as error:
            if is_readonly(error):
                raise NotShareable from error
            raise
        return rows

    async def close(self) -> None:
        """Interrupt what is under way and close."""
        with self._lock:
            for round_ in self._rounds:
                if round_.job is not None:
                    round_.job.cancelled = True
                    round_.connection.interrupt()
        while self._outstanding:
            self._empty = self._desk.loop.create_future()
            await self._empty
        if self._used:
            self._used = False
            job = self._desk.crew.submit(self._shut, lambda job: self._desk.leave())
            await asyncio.wait((job.future,))

    def _give_up(self, job: Job) -> None:
        with self._lock:
            job.cancelled = True
            round_: _Round | None = job.round
            if round_ is not None and round_.job is job:
                round_.connection.interrupt()

    def _landed(self, job: Job) -> None:
        self._outstanding -= 1
        if not self._outstanding and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _shut(self, job: Job) -> None:
        while self._spare:
            self._spare.pop().close()

    # -- in the threads -----------------------------------------------------------------------

    def begin(self, several: bool) -> _Round:
        """Take a connection, and one moment of the database for several reads."""
        with self._lock:
            connection = self._spare.pop() if self._spare else None
        if connection is None:
            connection = open_database(self._desk.path, self._desk.options)
            connection.execute("PRAGMA query_only=1")
        if several:
            connection.execute("BEGIN")  # the moment is that of the first read
        round_ = _Round(self, connection)
        with self._lock:
            self._rounds.add(round_)
        return round_

    def end(self, round_: _Round) -> None:
        """Take the connection back."""
        connection = round_.connection
        with self._lock:
            self._rounds.discard(round_)
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
        except sqlite3.Error:
            connection.close()
        else:
            self._spare.append(connection)

    def _read(self, job: Job, sql: str, args: Sequence[Any], limit: int | None) -> list[Row]:
        round_: _Round = job.round
        with self._lock:
            if job.cancelled or job.future.cancelled():
                return []
            round_.job = job
        connection = round_.connection
        return patiently(
            lambda: _rows(connection, sql, args, limit),
            self._desk.options.busy_timeout,
            lambda: job.cancelled,
        )


def _rows(
    connection: sqlite3.Connection, sql: str, args: Sequence[Any], limit: int | None
) -> list[Row]:
    cursor = connection.execute(sql, args)
    if limit is None:
        return cursor.fetchall()
    rows: list[Row] = cursor.fetchmany(limit)
    cursor.close()  # ends the reading of the rest, and with it the snapshot
    return rows
