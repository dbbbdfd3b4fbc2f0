"""Where jobs are done: on a pool for each event loop, or on SQLite in a thread.

Nobody works on a pool that was handed in: a place takes the settings and opens connections of its
own. So a caller that holds every connection of its pool, inside a transaction or not, cannot
keep the cache waiting, and the cache takes no connection away from it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, cast

from tiercache._sql.line import Line
from tiercache._sql.per_loop import PerLoop
from tiercache._sql.program import Job, Need, Program, Question, Row

if TYPE_CHECKING:
    from poolkit import Pool
    from poolkit.driver import SyncFace
    from poolkit.drivers._crew import Crew
    from poolkit.drivers._crew import Job as Work
    from poolkit.drivers.sqlite import SQLiteDriver

T = TypeVar("T")


class Place(Protocol):
    """A database, from any number of event loops."""

    @property
    def system(self) -> Literal["postgresql", "sqlite"]:
        """Which database it is, as telemetry names it."""
        ...

    @property
    def address(self) -> str:
        """Where it is, without credentials: two places of one address are one database."""
        ...

    @property
    def private(self) -> bool:
        """Whether nobody but this process can see it: a database in memory."""
        ...

    async def run(self, job: Job[T]) -> T:
        """Do a job on the running loop; errors are the pool's and the driver's."""
        ...

    async def ask(self, question: Question[T]) -> T:
        """Ask a question on the running loop, with the same errors: it needs no more than rows."""
        ...

    async def aclose(self) -> None:
        """Close what the loops that run have open; a later use opens it anew."""
        ...


def place_of(pool: Pool, timeout: float, max_size: int) -> Place:
    """Return a place in the database of a pool, with connections of its own.

    ``timeout`` (seconds) bounds what waits there, ``max_size`` the connections or threads of each
    event loop.
    """
    driver: Any = pool.driver
    if driver.system == "sqlite":
        return SqlitePlace(driver, timeout, max_size)
    name = f"{pool.name} (cache)"
    return PostgresPlace(
        lambda: pool.sibling(max_size=max_size, name=name), timeout, str(driver.address)
    )


class PostgresPlace:
    """PostgreSQL. Every statement is right alone, so most jobs need no transaction (`Postgres`)."""

    def __init__(self, make_pool: Callable[[], Pool], timeout: float, address: str) -> None:
        self._make_pool = make_pool
        self._pools = PerLoop(lambda: _Closing(make_pool(), timeout))
        self._timeout = timeout
        self.address: Final = address
        self.system: Final = "postgresql"
        self.private: Final = False

    async def run(self, job: Job[T]) -> T:
        """Do a job on one connection."""
        pool = (await self._pools.get()).pool
        program = job.make()
        if job.atomic:
            # Not what the database has as its default: each statement sees what is committed then.
            async with pool.transaction(isolation="read_committed") as transaction:
                return await _drive(program, transaction.fetch)
        async with pool.acquire(timeout=self._timeout) as connection:
            return await _drive(program, connection.fetch)

    async def ask(self, question: Question[T]) -> T:
        """Ask a question on one connection."""
        (sql, args), answer = question
        pool = (self._pools.held() or await self._pools.get()).pool
        borrow = pool.take() or await pool.lend(self._timeout)
        try:
            rows = await borrow.fetch(sql, args, None)
        finally:
            borrow.end()
        return answer(rows)

    def line(self, channel: str, heard: Callable[[str], bool]) -> Line:
        """Return a connection apart, for the running loop, which hears what is notified."""
        return Line(self._make_pool().sibling(max_size=1), channel, self._timeout, heard)

    async def aclose(self) -> None:
        """Close the pools."""
        await self._pools.aclose()


class _Closing:
    """A pool that a server which stands still does not keep open for long."""

    def __init__(self, pool: Pool, timeout: float) -> None:
        self.pool = pool
        self._timeout = timeout

    async def close(self) -> None:
        """Close; abort what takes longer than two operations may."""
        try:
            async with asyncio.timeout(2 * self._timeout):
                await self.pool.close(self._timeout)
        except TimeoutError:
            pass  # being cancelled, the pool has aborted its connections


class SqlitePlace:
    """SQLite: every job at one go, in the caller's thread or in one that works for a loop.

    A job holds the right to write without ever waiting for a loop to turn, so a caller that blocks
    its loop waits for it a moment and not for ever. Several statements are one transaction, which
    saves commits. What must last waits for the disk at its commit; the rest is left to the
    operating system, which outlives this process but not a loss of power.
    """

    def __init__(self, driver: SQLiteDriver, timeout: float, threads: int) -> None:
        self.system: Final = "sqlite"
        self.private: Final = driver.address.database == ":memory:"
        self.address: Final = ":memory:" if self.private else os.path.realpath(driver.path)
        usual, durable = self._drivers = _drivers(driver, timeout)
        self._usual = Face(usual)
        self._durable = self._usual if durable is usual else Face(durable)
        self._crews = PerLoop(lambda: _Crews(threads))

    async def run(self, job: Job[T]) -> T:
        """Do a job in a thread."""
        crews = await self._crews.get()
        crew = crews.reading if job.need is Need.READ else crews.writing
        return await crew.run(lambda work: self._do(job, lambda: work.cancelled))

    async def ask(self, question: Question[T]) -> T:
        """Ask a question in a thread."""
        (sql, args), answer = question
        crews = self._crews.held() or await self._crews.get()
        rows: Sequence[Row] = await crews.reading.run(
            lambda work: () if work.cancelled else self._usual.get().fetch(sql, *args)
        )
        return answer(rows)

    def face(self) -> Face:
        """Return blocking connections apart, for one who watches the file; he closes them."""
        return Face(self._drivers[0])

    def run_here(self, job: Job[T]) -> T:
        """Do a job in the caller's thread."""
        return self._do(job, lambda: False)

    def ask_here(self, question: Question[T]) -> T:
        """Ask a question in the caller's thread."""
        (sql, args), answer = question
        return answer(self._usual.get().fetch(sql, *args))

    async def aclose(self) -> None:
        """Let the threads end and close the connections."""
        await self._crews.aclose()
        self._usual.close()
        self._durable.close()

    def _do(self, job: Job[T], given_up: Callable[[], bool]) -> T:
        face = (self._durable if job.need is Need.DURABLE else self._usual).get()
        program = job.make()
        if not job.atomic and not job.several:
            return _drive_here(program, face.fetch, given_up)
        with face.transaction() as transaction:
            return _drive_here(program, transaction.fetch, given_up)


class Face:
    """The blocking connections of one driver, to the file that is there now.

    A file that was deleted or replaced lives on for those who have it open, out of sight of others:
    its invalidations would not reach them. So every use looks whether the path still leads there.
    (A child process after a fork has connections of its own: `SyncFace` sees to that.)
    """

    def __init__(self, driver: SQLiteDriver) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._open: tuple[SyncFace | None, tuple[int, int] | None] = (None, None)
        """The face, and what file it is of."""

    def get(self) -> SyncFace:
        """Return the face, open."""
        try:
            status = os.stat(self._driver.path)
        except OSError:
            file = None
        else:
            file = status.st_dev, status.st_ino
        face, known = self._open
        if face is not None and file == known:
            return face
        with self._lock:
            face, known = self._open
            if face is not None and file != known and known is not None:
                face.close()
                face = None
            if face is None:
                face = self._driver.sync()
            self._open = face, file
            return face

    def close(self) -> None:
        """Close; what is under way comes to its end first."""
        with self._lock:
            face, known = self._open
            self._open = None, known
        if face is not None:
            face.close()


class _Crews:
    """The threads that work for one loop.

    Writers wait for each other, and for transactions of the application; readers wait for nobody,
    and so they have threads that no writer can hold: also because such a transaction may be what
    asks.
    """

    def __init__(self, threads: int) -> None:
        self.reading = _Crew(threads)
        self.writing = _Crew(1)

    async def close(self) -> None:
        """Let the threads end after what they are at; it is bounded by the tier's timeout."""
        self.reading.dismiss()
        self.writing.dismiss()


class _Crew:
    """Some threads for one loop."""

    def __init__(self, threads: int) -> None:
        from poolkit.drivers._crew import Crew

        loop = asyncio.get_running_loop()
        self._crew: Crew = Crew(loop, limit=threads, name="tiercache-sqlite")

    async def run(self, work: Callable[[Work], T]) -> T:
        """Have ``work(itself)`` done; ``cancelled`` tells it that nobody waits any more."""
        job = self._crew.submit(work)
        try:
            return cast("T", await job.future)
        except asyncio.CancelledError:
            job.cancelled = True
            raise

    def dismiss(self) -> None:
        """Let the threads end."""
        self._crew.dismiss()


def _drivers(driver: SQLiteDriver, timeout: float) -> tuple[SQLiteDriver, SQLiteDriver]:
    """Return a driver for what may be lost with the power, and one for what may not."""
    if driver.address.database == ":memory:":
        return driver, driver
    from poolkit.drivers.sqlite import SQLiteDriver

    path = os.path.abspath(driver.path)  # a later chdir does not make it another database
    options = replace(driver.options, busy_timeout=timeout, writer_timeout=timeout)
    usual = SQLiteDriver(path, options)
    if options.synchronous.upper() != "NORMAL":
        return usual, usual
    return usual, SQLiteDriver(path, replace(options, synchronous="FULL"))


async def _drive(program: Program[T], fetch: Callable[..., Awaitable[Sequence[Row]]]) -> T:
    """Run the statements of a program."""
    try:
        statement = next(program)
        while True:
            statement = program.send(await fetch(statement.sql, *statement.args))
    except StopIteration as end:
        return cast("T", end.value)


def _drive_here(
    program: Program[T], fetch: Callable[..., Sequence[Row]], given_up: Callable[[], bool]
) -> T:
    """Run the statements of a program, until they are done or nobody waits for them."""
    try:
        statement = next(program)
        while not given_up():
            statement = program.send(fetch(statement.sql, *statement.args))
    except StopIteration as end:
        if not given_up():
            return cast("T", end.value)
    raise TimeoutError("nobody waits for this any more: it is rolled back")
