"""SQLite with one writer and many readers, for an event loop.

Every session is a connection of its own, set to ``query_only``: it reads beside all others, also
beside a writer, as WAL allows. Who writes passes the gate first, one at a time and in order of
arrival (`_gate`), and then has the lock at once; nobody in this process ever sees "database is
locked". What counts as writing is guessed from the text; where the guess is wrong SQLite itself
refuses, and the statement is run again through the gate.

An in-memory database is a private file in a memory-backed folder, gone when its last user is: so
it has readers beside a writer, and the blocking face shares it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from poolkit._session import Dirt, Kind, read
from poolkit.driver import Address, Begin, Fault, Row
from poolkit.drivers._blocking import SQLiteSync
from poolkit.drivers._crew import Job
from poolkit.drivers._desk import Desk, SharedDesk, pass_gate
from poolkit.drivers._gate import Ticket
from poolkit.drivers._lite import (
    SQLiteOptions,
    close,
    execute,
    execute_many,
    is_busy,
    is_readonly,
    open_database,
    patiently,
    rewrite,
)
from poolkit.drivers._memory import MemoryFile
from poolkit.errors import ConnectFailed, ConnectionLost

T = TypeVar("T")

__all__ = ["SQLiteDriver", "SQLiteOptions", "SQLiteSession", "SQLiteSync"]


class SQLiteDriver:
    """Makes sessions of one database file, or of one in memory (``path=None``)."""

    system = "sqlite"

    def __init__(self, path: str | Path | None, options: SQLiteOptions | None = None) -> None:
        self.options = options or SQLiteOptions()
        self._memory = MemoryFile() if path is None else None
        self._path = "" if path is None else str(path)
        self.address = Address("", None, self._path or ":memory:")
        self._desks: dict[asyncio.AbstractEventLoop, Desk] = {}

    @property
    def path(self) -> str:
        """The database file."""
        return self._memory.path if self._memory is not None else self._path

    async def connect(self, timeout: float) -> SQLiteSession:
        """Open a connection; a file that does not exist is made."""
        desk = self._desk()
        desk.enter()
        job = desk.crew.submit(lambda job: open_database(desk.path, self.options), desk.unwanted)
        try:
            async with asyncio.timeout(timeout):
                connection = await job.future
        except (sqlite3.Error, TimeoutError) as error:
            if isinstance(error, sqlite3.Error):
                desk.leave()
            raise ConnectFailed(
                f"cannot open the SQLite database {self.address.database!r}: {error}",
                server=self.address.database,
            ) from error
        return SQLiteSession(connection, desk)

    def share(self) -> SharedDesk:
        """Return the group writer and the shared readers of this loop."""
        return SharedDesk(self._desk())

    def fault(self, error: BaseException) -> Fault:
        """Read an error: BUSY is the one that trying again may mend."""
        return Fault(getattr(error, "sqlite_errorname", None), retry=is_busy(error))

    def sync(self) -> SQLiteSync:
        """Return a blocking face of the same database."""
        return SQLiteSync(self.path, self.options, keep=self._memory)

    def _desk(self) -> Desk:
        loop = asyncio.get_running_loop()
        desk = self._desks.get(loop)
        if desk is None:
            self._desks = {old: kept for old, kept in self._desks.items() if not old.is_closed()}
            desk = self._desks[loop] = Desk(loop, self.path, self.options)
        return desk


class SQLiteSession:
    """One connection to a database file."""

    __slots__ = (
        "_busy", "_closed", "_connection", "_desk", "_end", "_in_transaction", "_job", "_lost",
        "_settling", "_ticket", "_writable",
    )  # fmt: skip

    def __init__(self, connection: sqlite3.Connection, desk: Desk) -> None:
        self._connection = connection
        self._desk = desk
        self._ticket: Ticket | None = None
        self._writable = True
        self._in_transaction = False
        self._closed = False
        self._end: asyncio.Future[None] = desk.loop.create_future()
        self._busy = False
        self._job: Job | None = None
        self._settling: list[asyncio.Future[None]] = []
        self._lost: list[Callable[[], None]] = []

    @property
    def raw(self) -> sqlite3.Connection:
        """The ``sqlite3`` connection; use it from one thread at a time."""
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._in_transaction

    @property
    def at_rest(self) -> bool:
        """Whether it is open and has neither a transaction nor a job in the thread."""
        return not (self._closed or self._in_transaction or self._job is not None)

    @property
    def unsettled(self) -> bool:
        """Whether a cancelled statement is still under way in its thread."""
        return self._job is not None

    # -- statements ---------------------------------------------------------------------------

    async def execute(self, sql: str, args: Sequence[Any], timeout: float | None) -> int:
        """Run a statement (several, if there are no arguments); return the rows changed."""
        writes = read(sql).kind is not Kind.READ
        return await self._run(lambda connection: execute(connection, sql, args), writes, timeout)

    async def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], timeout: float | None
    ) -> None:
        """Run a statement for each of the argument sequences, all of them or none."""
        many = [tuple(row) for row in args]
        await self._run(lambda connection: execute_many(connection, sql, many), True, timeout)

    async def fetch(self, sql: str, args: Sequence[Any], timeout: float | None) -> list[Row]:
        """Return all rows."""
        text = rewrite(sql)

        def work(connection: sqlite3.Connection) -> list[Row]:
            return connection.execute(text, args).fetchall()

        return await self._run(work, read(sql).kind is not Kind.READ, timeout)

    async def fetchrow(self, sql: str, args: Sequence[Any], timeout: float | None) -> Row | None:
        """Return the first row."""
        text = rewrite(sql)

        def work(connection: sqlite3.Connection) -> Row | None:
            cursor = connection.execute(text, args)
            row: Row | None = cursor.fetchone()
            if row is not None and cursor.description is not None:
                cursor.close()
            return row

        return await self._run(work, read(sql).kind is not Kind.READ, timeout)

    async def fetchval(
        self, sql: str, args: Sequence[Any], column: int, timeout: float | None
    ) -> Any:
        """Return one value of the first row."""
        row = await self.fetchrow(sql, args, timeout)
        return None if row is None else row[column]

    # -- transactions -------------------------------------------------------------------------

    async def begin(self, how: Begin) -> None:
        """Begin: for writing, with the lock in hand; every isolation is serializable here."""
        if how.readonly:
            await self._run(lambda connection: connection.execute("BEGIN"), False, None)
        else:
            await self._run(
                lambda connection: connection.execute("BEGIN IMMEDIATE"), True, None, True
            )

    async def commit(self) -> bool:
        """Commit; False if SQLite has rolled back by itself meanwhile."""
        self._check_open()
        if not self._in_transaction:
            return False
        await self._run(lambda connection: connection.execute("COMMIT"), False, None)
        return True

    async def rollback(self, timeout: float) -> None:
        """Roll back."""
        await self.settle()
        if self._in_transaction:
            await self._run(lambda connection: connection.execute("ROLLBACK"), False, None)

    # -- care ---------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until the thread is done with a cancelled statement."""
        while self._job is not None:
            waiter: asyncio.Future[None] = self._desk.loop.create_future()
            self._settling.append(waiter)
            await waiter

    async def reset(self, dirt: Dirt, timeout: float) -> bool:
        """Decline: a new connection costs less than undoing pragmas and temporary tables."""
        return False

    async def ping(self, timeout: float) -> None:
        """See that the connection is open; there is no other side."""
        self._check_open()

    def watch(self, lost: Callable[[], None]) -> None:
        """Call ``lost()`` when it is closed."""
        self._lost.append(lost)

    def stale(self) -> bool:
        """Return False: there is no other side that could hang up."""
        return False

    async def close(self, timeout: float) -> None:
        """Close, after what is under way."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(timeout):
                await self.settle()
        finally:
            self._shut()
        await asyncio.wait((self._end,), timeout=timeout)

    def abort(self) -> None:
        """Interrupt what is under way and close after it; an open transaction is rolled back."""
        if self._job is not None:
            self._interrupt(self._job)
        self._shut()

    async def optimize(self) -> None:
        """Refresh the statistics of tables that have changed much."""
        await self._run(lambda connection: connection.execute("PRAGMA optimize"), True, None)

    async def backup(self, path: Path) -> None:
        """Copy the database, as it is at one moment, to a new file."""

        def work(connection: sqlite3.Connection) -> None:
            target = sqlite3.connect(path)
            try:
                connection.backup(target)
            finally:
                target.close()

        await self._run(work, False, None)

    # -- shipping work to the thread ------------------------------------------------------------

    async def _run(
        self,
        work: Callable[[sqlite3.Connection], T],
        writes: bool,
        timeout: float | None,
        stays: bool = False,
    ) -> T:
        """Do the work in the thread; ``stays`` says that it opens a transaction."""
        if timeout is not None:
            async with asyncio.timeout(timeout):
                return await self._run(work, writes, None)
        if self._busy:
            raise sqlite3.ProgrammingError(
                "another statement is under way on this connection: acquire one for each task"
            )
        self._busy = True
        try:
            await self.settle()
            self._check_open()
            if writes and self._ticket is None and not self._in_transaction:
                self._ticket = await pass_gate(self._desk)
                self._ticket.thread = self._desk.thread if stays else 0
            try:
                return await self._ship(work)
            except sqlite3.OperationalError as error:
                if writes or self._in_transaction or not is_readonly(error):
                    raise
            self._ticket = await pass_gate(self._desk)
            self._ticket.thread = 0
            return await self._ship(work)
        finally:
            self._busy = False

    async def _ship(self, work: Callable[[sqlite3.Connection], T]) -> T:
        job = self._desk.crew.submit(lambda job: self._perform(work, job), self._landed)
        self._job = job
        try:
            return cast("T", await job.future)
        except asyncio.CancelledError:
            self._interrupt(job)
            raise

    def _interrupt(self, job: Job) -> None:
        job.cancelled = True
        try:
            self._connection.interrupt()
        except sqlite3.ProgrammingError:
            pass  # closed

    def _perform(self, work: Callable[[sqlite3.Connection], Any], job: Job) -> Any:
        """Do one job, in a thread: with the right to write exactly while the ticket is held."""
        connection = self._connection
        try:
            if (self._ticket is not None) is not self._writable:
                self._set_writable(self._ticket is not None)
            if job.cancelled:
                return None
            limit = self._desk.options.busy_timeout
            return patiently(lambda: work(connection), limit, lambda: job.cancelled)
        finally:
            self._in_transaction = connection.in_transaction
            ticket = self._ticket
            if ticket is not None and not self._in_transaction:
                self._set_writable(False)
                self._ticket = None
                self._desk.gate.leave(ticket)

    def _set_writable(self, writable: bool) -> None:
        self._connection.execute(f"PRAGMA query_only={int(not writable)}")
        self._writable = writable

    def _landed(self, job: Job) -> None:
        self._job = None
        for waiter in self._settling:
            if not waiter.done():
                waiter.set_result(None)
        self._settling.clear()
        if self._closed:
            self._submit_close()

    def _shut(self) -> None:
        """Close in the thread, when the job under way has landed."""
        if self._closed:
            return
        self._closed = True
        for lost in self._lost:
            self._desk.loop.call_soon(lost)
        if self._job is None:
            self._submit_close()

    def _submit_close(self) -> None:
        def work(job: Job) -> None:
            close(self._connection)
            self._in_transaction = False
            if self._ticket is not None:
                self._desk.gate.leave(self._ticket)

        def landed(job: Job) -> None:
            self._desk.leave()
            if not self._end.done():
                self._end.set_result(None)

        if not self._desk.loop.is_closed():
            self._desk.crew.submit(work, landed)

    def _check_open(self) -> None:
        if self._closed:
            raise ConnectionLost(
                f"the connection to the SQLite database {self._desk.path!r} was closed", sent=False
            )
