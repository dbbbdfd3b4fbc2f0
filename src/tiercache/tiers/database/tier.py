"""`DatabaseTier`: the operations of a remote tier, and what their failures mean."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

from tiercache._sql.events import event_schema
from tiercache._sql.faults import explain
from tiercache._sql.names import Tables
from tiercache._sql.places import Place, SqlitePlace, place_of
from tiercache._sql.postgres import Postgres
from tiercache._sql.program import START, VERSION, Dialect, Job, Need, Statement
from tiercache._sql.sqlite import Sqlite
from tiercache.errors import PolicyError, TierError
from tiercache.tiers.base import Ask, Basis, Blocking, Fill, Filled, Kind, Leased, Stored
from tiercache.tiers.database.requests import Requests

if TYPE_CHECKING:
    from poolkit import Pool

T = TypeVar("T")

Announce = Callable[[Sequence[bytes]], Sequence[tuple[str, tuple[object, ...]]]]
"""Returns the statements, with ``$1`` parameters, that publish encoded events."""

_ATTEMPTS: Final = 8
_BACKOFF: Final = 0.002


class DatabaseTier:
    """A cache tier in SQLite or PostgreSQL.

    ``database`` is a `poolkit.Pool` or a URL (``sqlite:///cache.db``,
    ``postgresql://user@host/database``). A pool belongs to its owner and lends its settings alone:
    the tier opens up to ``max_size`` connections of its own for each event loop, and closes them.
    ``timeout`` (seconds) bounds each operation.

    The tables are called ``{prefix}_entry``, ``{prefix}_tag`` and ``{prefix}_meta``; on PostgreSQL
    the prefix may begin with a schema (``"app.tiercache"``). They are made on opening where they
    are missing; who may not create tables has somebody run what `schema` returns. ``unlogged``
    makes PostgreSQL tables that stay out of its log: faster, and empty after a crash.
    """

    def __init__(
        self,
        database: Pool | str,
        *,
        timeout: float = 1.0,
        prefix: str = "tiercache",
        max_size: int = 4,
        unlogged: bool = False,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise PolicyError(f"timeout={timeout!r} is refused: expected seconds, more than 0")
        if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
            raise PolicyError(f"max_size={max_size!r} is refused: expected 1 connection or more")
        self._timeout = float(timeout)
        self._tables = Tables.of(prefix)
        pool = _pool_from_url(database) if isinstance(database, str) else database
        driver: Any = getattr(pool, "driver", None)
        if driver is None:
            raise PolicyError(f"{database!r} is refused: expected a poolkit.Pool or a URL")
        self.address: Final = (driver.system, driver.address)
        """Which database it is: pools of the same address are others of the same."""
        self._name = f"{driver.system} {driver.address}"
        self._dialect = _dialect(driver.system, prefix, unlogged)
        self._place = place_of(pool, self._timeout, max_size)
        self._pool = None if isinstance(database, str) else database
        self._bound: Requests | None = None
        self._ready = False
        self._swept = START
        self._announce: Announce | None = None
        self._preparation: Job[None] | None = None

    def __repr__(self) -> str:
        return f"<DatabaseTier {self._name}>"

    @staticmethod
    def schema(
        system: Literal["postgresql", "sqlite"],
        *,
        prefix: str = "tiercache",
        unlogged: bool = False,
    ) -> str:
        """Return the statements that make the tables, for an administrator to run.

        Each may be repeated. Where the tables are, a role needs no right to create any.
        """
        statements = _dialect(system, prefix, unlogged).schema()
        statements += event_schema(system, Tables.of(prefix))
        return "".join(f"{statement};\n" for statement in statements)

    @property
    def kind(self) -> Kind:
        """What it is, in statistics, metrics and errors."""
        return "database"

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self._timeout

    @property
    def pool(self) -> Pool | None:
        """The pool that was handed in, whose transactions the cache may be asked to join."""
        return self._pool

    def shares_writer(self, pool: object) -> bool:
        """Whether a transaction of the pool keeps this tier from writing: both are on one file."""
        driver: Any = getattr(pool, "driver", None)
        if self._place.system != "sqlite" or getattr(driver, "system", "") != "sqlite":
            return False
        return bool(self._place.address == os.path.realpath(driver.path))

    @property
    def place(self) -> Place:
        """Where its jobs are done."""
        return self._place

    @property
    def tables(self) -> Tables:
        """The names of its tables."""
        return self._tables

    @property
    def blocking(self) -> Blocking | None:
        """The operations in the caller's thread, on SQLite; None on PostgreSQL."""
        place = self._place
        return BlockingDatabase(self, place) if isinstance(place, SqlitePlace) else None

    def bind(self, namespace: str) -> None:
        """Attach to one cache; its name keeps its keys apart from other caches'."""
        self._bound = Requests(self._dialect, namespace)

    def announce(self, statements: Announce | None, preparation: Job[None] | None = None) -> None:
        """Have ``statements(events)`` run in one transaction with the deletions events come with.

        So a bus in the same database publishes: an event is out if and only if what it tells of
        is done. ``preparation`` makes the tables that the statements need.
        """
        self._announce = statements
        self._preparation = preparation

    async def open(self) -> None:
        """Connect, and make what is missing of the schema; `TierError` when it cannot."""
        await self._run(Job("open", self._dialect.version, Need.READ))

    async def ping(self) -> None:
        """Answer, or raise `TierError`."""
        await self._run(Job("ping", self._dialect.version, Need.READ))

    async def prune(self, limit: int) -> int:
        """Delete up to ``limit`` entries, of any cache, whose time is over or that nobody can read.

        The latter are found on a walk over the table that goes on at the next call.
        """
        expired = await self._run(Job("prune", lambda: self._dialect.expire(limit), Need.WRITE))
        left, at = limit - expired, self._swept
        if left <= 0:
            return expired
        swept = await self._run(Job("prune", lambda: self._dialect.sweep(at, left), Need.WRITE))
        self._swept = swept.at
        return expired + swept.deleted

    async def aclose(self) -> None:
        """Close the pools of every loop that still runs; a later use opens them anew."""
        self._ready = False
        await self._place.aclose()

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        return await self._run(self.requests.read(asks))

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        return await self._run(self.requests.lease(asks, ttl, patient))

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        return await self._run(self.requests.renew(bases, ttl))

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return await self._run(self.requests.release(bases))

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`; refused also where the run or a tag's token is not current."""
        return await self._run(self.requests.fill(fills))

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        await self._run(self.requests.invalidate(keys, tags, self.announced(events)))

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`: one row goes; unreadable entries stay until they are pruned."""
        await self._run(self.requests.clear(self.announced(events)))

    @property
    def requests(self) -> Requests:
        """The operations of the cache that this is bound to."""
        if self._bound is None:
            raise RuntimeError(f"{self!r} is not bound to a cache yet: call bind(namespace)")
        return self._bound

    def announced(self, events: Sequence[bytes]) -> list[Statement]:
        """Return the statements that publish the events."""
        if not events:
            return []
        if self._announce is None:
            raise RuntimeError(f"no bus publishes through {self!r}: it cannot take events")
        return [Statement(sql, args) for sql, args in self._announce(events)]

    async def _run(self, job: Job[T]) -> T:
        """Do a job on the running loop."""
        steps = self.steps(job)
        step = next(steps)
        while True:
            try:
                result = None
                if isinstance(step, Job):
                    result = await self._place.run(step)
                else:
                    await asyncio.sleep(step)
            except Exception as error:  # noqa: BLE001 - `steps` decides what it means
                step = steps.throw(error)
                continue
            try:
                step = steps.send(result)
            except StopIteration as end:
                return cast("T", end.value)

    def steps(self, job: Job[T]) -> Generator[Job[Any] | float, Any, T]:
        """Say what to do, step by step: a job, whose result is sent, or seconds to wait.

        A job that lost a race is done again, and so is one that found a table missing, after the
        schema has been made. Errors are thrown in; what comes out is a `TierError`.
        """
        prepare = False
        for attempt in range(_ATTEMPTS):
            try:
                if not self._ready:
                    yield from self._prepare()
                    self._ready = True
                if prepare and self._preparation is not None:
                    yield self._preparation
                return cast("T", (yield job))
            except TierError:
                raise
            except Exception as error:
                fault = explain(error, self._tables)
                if fault.missing:
                    self._ready = False
                    prepare = True
                if attempt == _ATTEMPTS - 1 or not (fault.retry or fault.missing):
                    raise self._failure(job.operation, error) from error
            yield random.random() * _BACKOFF * 2**attempt  # noqa: S311 - a lot, not a secret
        raise AssertionError("the last attempt returns or raises")

    def _prepare(self) -> Generator[Job[Any], Any, None]:
        """See that the schema is there and is ours."""
        look = Job("open", self._dialect.version, Need.READ)
        version = yield look
        if version is None:
            yield Job("open", self._dialect.create, Need.WRITE, atomic=True)
            version = yield look
        if version != VERSION:
            raise TierError(
                f"the tables of {self._name} are of version {version}, and this tiercache works "
                f"with version {VERSION}: drop {', '.join(self._tables.of_tier)} (they are a cache "
                f"and will be made anew) or give it tables of its own with prefix=",
                tier=self.kind,
                operation="open",
                unavailable=False,
            )

    def _failure(self, operation: str, error: Exception) -> TierError:
        """Say what failed, where, why, and what can be done."""
        fault = explain(error, self._tables)
        what = str(error) or type(error).__name__
        text = f"{self._name} failed ({operation}): {what}"
        return TierError(
            f"{text.rstrip('.')}. {fault.advice}".rstrip(),
            tier=self.kind,
            operation=operation,
            unavailable=fault.unavailable,
        )


class BlockingDatabase:
    """`Blocking` on SQLite; safe from any number of threads."""

    __slots__ = ("_place", "_tier")

    def __init__(self, tier: DatabaseTier, place: SqlitePlace) -> None:
        self._tier = tier
        self._place = place

    def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        return self._run(self._tier.requests.read(asks))

    def lease(self, asks: Sequence[Ask], ttl: float, patient: bool = False) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        return self._run(self._tier.requests.lease(asks, ttl, patient))

    def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return self._run(self._tier.requests.release(bases))

    def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        return self._run(self._tier.requests.fill(fills))

    def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self._run(self._tier.requests.invalidate(keys, tags, self._tier.announced(events)))

    def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        self._run(self._tier.requests.clear(self._tier.announced(events)))

    def _run(self, job: Job[T]) -> T:
        """Do a job in the caller's thread."""
        steps = self._tier.steps(job)
        step = next(steps)
        while True:
            try:
                result = None
                if isinstance(step, Job):
                    result = self._place.run_here(step)
                else:
                    time.sleep(step)
            except Exception as error:  # noqa: BLE001 - `steps` decides what it means
                step = steps.throw(error)
                continue
            try:
                step = steps.send(result)
            except StopIteration as end:
                return cast("T", end.value)


def _dialect(system: str, prefix: str, unlogged: bool) -> Dialect:
    """Return what a database wants to hear; `PolicyError` for one that is not known."""
    tables = Tables.of(prefix)
    if system == "postgresql":
        return Postgres(tables, unlogged=unlogged)
    if system != "sqlite":
        raise PolicyError(f"a cache cannot be kept in {system!r}: use 'postgresql' or 'sqlite'")
    if unlogged:
        raise PolicyError("unlogged=True is refused: SQLite has no such tables")
    if prefix != tables.plain:
        raise PolicyError(f"prefix={prefix!r} is refused: SQLite has no schemas")
    return Sqlite(tables)


def _pool_from_url(url: str) -> Pool:
    """Return an unopened pool; `PolicyError` names the URL, without credentials."""
    from poolkit import Pool

    try:
        return Pool(url, min_size=0)
    except (ValueError, TypeError) as error:
        raise PolicyError(
            f"{_shown(url)!r} is not the URL of a database tier: {error}. Write "
            "sqlite:///cache.db or postgresql://user@host/database"
        ) from error


def _shown(url: str) -> str:
    """Return the URL without user, password and options."""
    head, at, tail = url.partition("?")[0].rpartition("@")
    if not at:
        return tail
    return f"{head.partition('://')[0]}://…@{tail}" if "://" in head else f"…@{tail}"
