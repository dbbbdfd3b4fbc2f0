"""Point reads of many callers on few connections: what is asked in one tick is read in one go."""

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


class SharedReader:
    """The readers that the callers of one loop share: one for each thread that is at it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._spare: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        """Held to say which connection works for which job, so that no other is interrupted."""
        self._busy: dict[Job, sqlite3.Connection] = {}
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
        job = self._desk.crew.submit(lambda job: self._read(job, text, args, limit), self._landed)
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
            for job, connection in self._busy.items():
                job.cancelled = True
                connection.interrupt()
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
            connection = self._busy.get(job)
            if connection is not None:
                connection.interrupt()

    def _landed(self, job: Job) -> None:
        self._outstanding -= 1
        if not self._outstanding and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _shut(self, job: Job) -> None:
        while self._spare:
            self._spare.pop().close()

    def _read(self, job: Job, sql: str, args: Sequence[Any], limit: int | None) -> list[Row]:
        if job.cancelled or job.future.cancelled():
            return []
        options = self._desk.options
        with self._lock:
            connection = self._spare.pop() if self._spare else None
            if connection is not None:
                self._busy[job] = connection
        if connection is None:
            connection = open_database(self._desk.path, options)
            connection.execute("PRAGMA query_only=1")
            self._busy[job] = connection
        try:
            return patiently(
                lambda: _rows(connection, sql, args, limit),
                options.busy_timeout,
                lambda: job.cancelled,
            )
        finally:
            with self._lock:
                del self._busy[job]
                self._spare.append(connection)


def _rows(
    connection: sqlite3.Connection, sql: str, args: Sequence[Any], limit: int | None
) -> list[Row]:
    cursor = connection.execute(sql, args)
    if limit is None:
        return cursor.fetchall()
    rows: list[Row] = cursor.fetchmany(limit)
    cursor.close()  # ends the reading of the rest, and with it the snapshot
    return rows
