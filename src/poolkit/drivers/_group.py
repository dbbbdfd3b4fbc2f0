"""Group commit: the short writes of many callers in one transaction.

The hop to the thread and the commit are paid once for all that queued meanwhile. Each statement
still succeeds or fails alone; where an error undid the whole transaction, as SQLite does when a
disk is full, the others are run again one by one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poolkit.drivers._lite import changed, execute, open_database, patiently, rewrite
from poolkit.errors import AcquireTimeout, TransactionError

if TYPE_CHECKING:
    from poolkit.drivers._crew import Job
    from poolkit.drivers._desk import Desk
    from poolkit.drivers._gate import Ticket

_AT_MOST = 512
"""Statements in one transaction: others want to write, too."""


class _Write:
    __slots__ = ("args", "error", "future", "result", "sql")

    def __init__(self, sql: str, args: Sequence[Any], future: asyncio.Future[int]) -> None:
        self.sql = sql
        self.args = args
        self.future = future
        self.result = 0
        self.error: BaseException | None = None


class GroupWriter:
    """The writer that the callers of one loop share."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._queue: deque[_Write] = deque()
        self._connection: sqlite3.Connection | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    def execute(self, sql: str, args: Sequence[Any]) -> asyncio.Future[int]:
        """Run a statement with those of others; the result is the number of rows it changed."""
        desk = self._desk
        holder = desk.gate.holder
        if holder is not None:
            self._refuse_to_wait_for_oneself(holder)
        write = _Write(sql, args, desk.loop.create_future())
        self._queue.append(write)
        if self._ticket is None:
            self._line_up()
        return write.future

    def _refuse_to_wait_for_oneself(self, holder: Ticket) -> None:
        me = asyncio.current_task(self._desk.loop)
        if me is not None and holder.owner is me:
            raise TransactionError(
                f"this task has a transaction open that writes to {self._desk.path!r}, and SQLite "
                f"has one writer: use that transaction (current_transaction())"
            )

    def _line_up(self) -> None:
        desk = self._desk
        self._ticket = desk.gate.request(self, lambda: desk.loop.call_soon_threadsafe(self._go))
        if self._ticket.granted:
            # After this tick, so that all who write in it come along.
            desk.loop.call_soon(self._go)
        else:
            self._timer = desk.loop.call_later(desk.options.writer_timeout, self._expire)

    def _expire(self) -> None:
        """Refuse those whose turn did not come."""
        ticket, self._ticket, self._timer = self._ticket, None, None
        if ticket is None or ticket.granted:
            self._ticket = ticket
            return
        self._desk.gate.leave(ticket)
        limit = self._desk.options.writer_timeout
        for write in self._queue:
            if not write.future.done():
                write.future.set_exception(
                    AcquireTimeout(
                        f"the writer of the SQLite database {self._desk.path!r} did not come free "
                        f"in {limit:g} s: keep transactions short, or raise writer_timeout",
                        timeout=limit,
                    )
                )
        self._queue.clear()
        self._note_empty()

    def _go(self) -> None:
        if self._ticket is None or not self._ticket.granted:
            return  # the turn came for a ticket that was given up meanwhile
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[_Write] = []
        while self._queue and len(batch) < _AT_MOST:
            write = self._queue.popleft()
            if not write.future.done():  # cancelled before it began: never run
                batch.append(write)
        if self._connection is None:
            self._desk.enter()
        self._ticket.thread = 0
        self._desk.crew.submit(lambda job: self._write(batch), lambda job: self._landed(job, batch))

    def _landed(self, job: Job, batch: list[_Write]) -> None:
        job.future.cancel()
        for write in batch:
            if write.future.done():
                continue
            error = job.error or write.error
            if error is not None:
                write.future.set_exception(error)
            else:
                write.future.set_result(write.result)
        if self._connection is None:
            self._desk.leave()  # it could not be opened
        self._ticket = None
        if self._queue:
            self._line_up()
        else:
            self._note_empty()

    def _note_empty(self) -> None:
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def close(self) -> None:
        """Wait until all is written, then close."""
        while self._queue or self._ticket is not None:
            self._empty = self._desk.loop.create_future()
            await self._empty
        connection, self._connection = self._connection, None
        if connection is not None:
            job = self._desk.crew.submit(
                lambda job: self._shut(connection), lambda job: self._desk.leave()
            )
            await asyncio.wait((job.future,))

    # -- in the thread ------------------------------------------------------------------------

    def _shut(self, connection: sqlite3.Connection) -> None:
        try:
            if self._desk.options.optimize:
                connection.execute("PRAGMA optimize")
        except sqlite3.Error:
            pass  # statistics are a courtesy: another process may be writing
        finally:
            connection.close()

    def _write(self, batch: list[_Write]) -> None:
        ticket = self._ticket
        options = self._desk.options
        try:
            if self._connection is None:
                self._connection = open_database(self._desk.path, options)
            connection = self._connection
            if len(batch) == 1 or not self._together(connection, batch):
                for write in batch:
                    self._alone(connection, write)
        finally:
            if ticket is not None:
                self._desk.gate.leave(ticket)

    def _together(self, connection: sqlite3.Connection, batch: list[_Write]) -> bool:
        """Run all in one transaction; False if that came to nothing."""
        limit = self._desk.options.busy_timeout
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), limit)
        cursor = connection.cursor()  # one for all: to make it is a tenth of a short write
        try:
            for write in batch:
                try:
                    write.result = changed(cursor.execute(rewrite(write.sql), write.args))
                except Exception as error:  # noqa: BLE001  it belongs to this one
                    write.error = error
                    if not connection.in_transaction:
                        return False
            patiently(lambda: connection.execute("COMMIT"), limit)
        except sqlite3.Error:
            return False
        finally:
            cursor.close()  # it may be held by the traceback of an error
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return True

    def _alone(self, connection: sqlite3.Connection, write: _Write) -> None:
        write.error = None  # of the attempt together
        limit = self._desk.options.busy_timeout
        try:
            write.result = patiently(lambda: execute(connection, write.sql, write.args), limit)
        except Exception as error:  # noqa: BLE001  it belongs to this one
            write.error = error
