"""Pool: what users hold. It composes the parts and restates none of them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from poolkit import retry
from poolkit._clock import Clock, SystemClock
from poolkit._session import Kind, read
from poolkit._statements import Borrow
from poolkit.broker import Broker
from poolkit.config import PoolConfig, PoolOptions
from poolkit.connection import Acquire, Connection
from poolkit.driver import Driver, NotShareable, Shared, SupportsShared, SupportsUpkeep
from poolkit.errors import PoolClosed, PoolError
from poolkit.listener import Listener
from poolkit.routing import Router
from poolkit.stats import PoolStats
from poolkit.telemetry.observer import NullObserver, Observer
from poolkit.transaction import Lender, Transaction, begin_options
from poolkit.urls import driver_from_url

if TYPE_CHECKING:
    from poolkit.driver import Row

T = TypeVar("T")

_POOL_FIELDS = frozenset(field.name for field in fields(PoolConfig))
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_inherited: list[Broker] = []
"""What a forked child got from its parent: kept untouched, because closing it would be heard."""
_UNOPENED = PoolStats(0, 0, 0, 0, 0, 0, 0, 0, 0)


class Pool:
    """A pool of connections to one database, for one event loop.

    ``dsn_or_driver`` is ``postgresql://user@host/database``, ``sqlite:///relative.db``,
    ``sqlite:////absolute/path.db``, ``sqlite://`` (in memory), or any `Driver`. The settings are
    those of `PoolConfig`, and of the database: `PostgresOptions`, `SQLiteOptions`.

    It opens with `open`, with ``async with pool``, or at first use, and then belongs to that event
    loop. After `close` it refuses work until it is opened anew.
    """

    def __init__(
        self,
        dsn_or_driver: str | Driver,
        *,
        replicas: Sequence[str | Driver] = (),
        clock: Clock | None = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        **config: Unpack[PoolOptions],
    ) -> None:
        chosen: dict[str, Any] = {**config}
        ours = {name: value for name, value in chosen.items() if name in _POOL_FIELDS}
        options = {name: value for name, value in chosen.items() if name not in _POOL_FIELDS}
        self._config = PoolConfig(**ours)
        if isinstance(dsn_or_driver, str):
            self._driver: Driver = driver_from_url(dsn_or_driver, options)
        elif options:
            raise TypeError(
                f"option {next(iter(options))!r} is none of a pool; give those of the database to "
                f"its driver"
            )
        else:
            self._driver = dsn_or_driver
        replica_options = {**options, "target_session_attrs": None} if options else {}
        self._replicas = tuple(
            driver_from_url(replica, replica_options) if isinstance(replica, str) else replica
            for replica in replicas
        )
        self._clock = clock or SystemClock()
        self._providers = (tracer_provider, meter_provider)
        self._observer: Observer | None = None
        self._broker: Broker | None = None
        self._opening: asyncio.Task[Broker] | None = None
        self._shared: Shared | None = None
        self._readers: list[Pool] = []
        self._router: Router | None = None
        self.name = self._config.name or str(self._driver.address)
        _pools.add(self)

    def __repr__(self) -> str:
        return f"<Pool {self.name!r}>"

    @property
    def config(self) -> PoolConfig:
        """The settings."""
        return self._config

    @property
    def driver(self) -> Driver:
        """The driver that makes its connections."""
        return self._driver

    @property
    def min_size(self) -> int:
        """Connections that are kept at all times."""
        return self._config.min_size

    def sibling(self, *, max_size: int | None = None, name: str | None = None) -> Pool:
        """Return another, unopened pool of the same database and settings.

        For work that must not compete with that of this pool, or for another event loop. An
        in-memory database is shared with it.
        """
        config = self._config
        size = config.max_size if max_size is None else max_size
        config = replace(
            config, max_size=size, min_size=min(config.min_size, size), name=name or config.name
        )
        return self._like_this(self._driver, config, self._replicas)

    def _like_this(self, driver: Driver, config: PoolConfig, replicas: tuple[Driver, ...]) -> Pool:
        tracer_provider, meter_provider = self._providers
        other = Pool(
            driver,
            replicas=replicas,
            clock=self._clock,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
        )
        other._config = config
        other.name = config.name or str(driver.address)
        return other

    # -- opening and closing --------------------------------------------------------------------

    async def open(self) -> Self:
        """Connect ``min_size`` connections (at least one, unless ``lazy``), or raise why not."""
        broker = self._broker
        if broker is None or broker.closing or broker.orphaned:
            await self._open()
        return self

    async def _open(self) -> Broker:
        """Open once for all who ask at the same time; who is cancelled does not stop the others."""
        opening = self._opening
        if opening is None or opening.get_loop() is not asyncio.get_running_loop():
            opening = self._opening = asyncio.get_running_loop().create_task(self._open_broker())
            opening.add_done_callback(self._opened)
        return await asyncio.shield(opening)

    async def _open_broker(self) -> Broker:
        if self._observer is None:
            self._observer = self._make_observer()
        broker = Broker(
            self._driver,
            self._config,
            owner=self,
            name=self.name,
            clock=self._clock,
            observer=self._observer,
            dress=Connection,
        )
        try:
            await broker.open()
            await self._open_replicas()
        except BaseException:
            await broker.close(0.0)
            raise
        config = self._config
        if (
            isinstance(self._driver, SupportsShared)
            and config.init is None
            and config.setup is None
            and config.slow_query is None
        ):
            self._shared = self._driver.share()
        self._broker = broker
        return broker

    async def _open_replicas(self) -> None:
        """Make a pool for each replica; one that is down is no reason not to open."""
        if not self._replicas:
            return
        lazy = replace(self._config, name=None, lazy=True)
        self._readers = [self._like_this(driver, lazy, ()) for driver in self._replicas]
        for reader in self._readers:
            await reader.open()
        self._router = Router(self._readers, max_lag=lazy.max_lag, clock=self._clock)

    def _opened(self, opening: asyncio.Task[Broker]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # told to whoever still waits

    def _make_observer(self) -> Observer:
        try:
            from poolkit.telemetry.otel import OtelObserver
        except ImportError:
            return NullObserver()
        tracer_provider, meter_provider = self._providers
        observer = OtelObserver(
            self.name,
            self._driver.system,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
        )
        observer.watch(self)
        return observer

    async def close(self, timeout: float | None = None) -> None:
        """Refuse new borrowers, wait for what is out, then abort it; again is a no-op.

        ``timeout`` (seconds) bounds the wait; by default ``close_timeout``.
        """
        opening = self._opening
        if opening is not None:
            try:
                await asyncio.wait((opening,))
            except asyncio.CancelledError:
                opening.cancel()  # a server that does not answer: nobody else would end it
                await asyncio.wait((opening,))
                raise
        broker = self._broker
        if broker is None:
            return
        if broker.orphaned:
            self._broker = self._shared = None  # there is no loop left to close anything in
            return
        broker.check_loop()
        self._router, readers, self._readers = None, self._readers, []
        for reader in readers:
            await reader.close(timeout)
        try:
            await broker.close(self._config.close_timeout if timeout is None else timeout)
        finally:
            if self._shared is not None:
                await self._shared.close()

    async def __aenter__(self) -> Self:
        """Open."""
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    def take(self) -> Borrow | None:
        """Borrow a connection at once, if one is idle and known to be good: the usual case."""
        broker = self._broker
        return None if broker is None else broker.take()

    async def lend(self, timeout: float | None = None) -> Borrow:
        """Borrow a connection, waiting up to ``timeout`` seconds (``acquire_timeout``)."""
        broker = self._broker
        if broker is None:
            broker = await self._open()
        return await broker.borrow(self._config.acquire_timeout if timeout is None else timeout)

    # -- borrowing ------------------------------------------------------------------------------

    def acquire(self, *, timeout: float | None = None) -> Acquire:
        """Borrow a connection: ``async with pool.acquire() as connection``.

        ``timeout`` (seconds; by default ``acquire_timeout``) bounds the wait: `AcquireTimeout`.
        ``await pool.acquire()`` borrows it until `Connection.release`.
        """
        return Acquire(self, timeout)

    def transaction(
        self,
        *,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        independent: bool = False,
    ) -> Transaction:
        """Make a transaction on a connection of its own: ``async with pool.transaction() as tx``.

        It commits when the block ends and rolls back when it raises. ``isolation`` is one of
        "read_uncommitted", "read_committed", "repeatable_read", "serializable". In a task that has
        one open on this pool, a second is refused unless it is ``independent``.
        """
        how = begin_options(isolation, readonly, deferrable)
        return Transaction(self, how, lender=self._lender_for(readonly), independent=independent)

    def _lender_for(self, readonly: bool) -> Lender:
        return self._lend_reader if readonly and self._replicas else self._lend

    async def _lend(self) -> Borrow:
        return self.take() or await self.lend()

    async def _lend_reader(self) -> Borrow:
        """Borrow from a replica that is close enough behind, else here."""
        if self._broker is None:
            await self._open()
        borrow = None
        if self._router is not None:
            borrow = await self._router.lend(self._config.max_lag)
        return borrow or await self._lend()

    async def run(
        self,
        fn: Callable[[Transaction], Awaitable[T]],
        *,
        retries: int = 3,
        isolation: str | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        independent: bool = False,
    ) -> T:
        """Run ``await fn(tx)`` in a transaction, and all of it again when it lost a race.

        That is SQLSTATE 40001 and 40P01, and SQLite's BUSY; up to ``retries`` times more, with a
        growing pause drawn by lot. ``fn`` must have no effects outside the transaction but in its
        hooks: those of an attempt that is run again never run.
        """
        how = begin_options(isolation, readonly, deferrable)
        lender = self._lender_for(readonly)
        for attempt in range(1, retries + 2):
            tx = Transaction(self, how, lender=lender, independent=independent, attempt=attempt)
            if attempt <= retries:
                tx.drop_hooks_if = self._may_be_retried
            try:
                async with tx:
                    result = await fn(tx)
            except Exception as error:
                if attempt > retries or not self._may_be_retried(error):
                    raise
                assert self._observer is not None
                self._observer.retried(self._driver.fault(error).sqlstate or "")
            else:
                return result
            await asyncio.sleep(retry.pause(attempt, self._clock.luck()))
        raise AssertionError("unreachable")

    def _may_be_retried(self, error: BaseException) -> bool:
        return self._driver.fault(error).retry

    # -- one statement on one borrowed connection -------------------------------------------------

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> int:
        """Run a statement; return the number of rows it changed."""
        shared = self._shared
        if shared is not None and timeout is None and self._may_share(sql, Kind.CHANGE):
            return await shared.execute(sql, args)
        borrow = self.take() or await self.lend()
        try:
            return await borrow.execute(sql, args, timeout)
        finally:
            borrow.end()

    async def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement for each of the argument sequences, all of them or none."""
        borrow = self.take() or await self.lend()
        try:
            await borrow.executemany(sql, args, timeout)
        finally:
            borrow.end()

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> list[Row]:
        """Return all rows."""
        shared = self._shared
        if shared is not None and timeout is None and self._may_share(sql, Kind.READ):
            try:
                return list(await shared.fetch(sql, args, None))
            except NotShareable:
                pass
        borrow = self.take() or await self.lend()
        try:
            return await borrow.fetch(sql, args, timeout)
        finally:
            borrow.end()

    async def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Row | None:
        """Return the first row, or None."""
        shared = self._shared
        if shared is not None and timeout is None and self._may_share(sql, Kind.READ):
            try:
                rows = await shared.fetch(sql, args, 1)
                return rows[0] if rows else None
            except NotShareable:
                pass
        borrow = self.take() or await self.lend()
        try:
            return await borrow.fetchrow(sql, args, timeout)
        finally:
            borrow.end()

    async def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Any:
        """Return a value of the first row, or None if there is no row."""
        shared = self._shared
        if shared is not None and timeout is None and self._may_share(sql, Kind.READ):
            try:
                rows = await shared.fetch(sql, args, 1)
                return rows[0][column] if rows else None
            except NotShareable:
                pass
        borrow = self.take() or await self.lend()
        try:
            return await borrow.fetchval(sql, args, column, timeout)
        finally:
            borrow.end()

    def _may_share(self, sql: str, kind: Kind) -> bool:
        """Whether a statement can run together with those of others."""
        found, _, statements = read(sql)
        if found is not kind or statements != 1:
            return False
        assert self._broker is not None
        return self._broker.has_one_to_share()

    def listen(self, channel: str) -> Listener:
        """Subscribe to a channel: ``async for notification in pool.listen("orders")``.

        It holds one connection. After a loss it subscribes again and yields a `Notification` whose
        ``gap`` is True: what was sent meanwhile is lost. ``async with`` subscribes at once.
        """
        return Listener(channel, self._lend, pool=self.name)

    async def optimize(self) -> None:
        """Refresh what SQLite's query planner knows; on PostgreSQL that is autovacuum's work."""
        await self._upkeep("optimize", lambda session: session.optimize())

    async def backup(self, path: str | Path) -> None:
        """Copy a SQLite database, as it is at one moment, to a new file; readers go on."""
        await self._upkeep("backup", lambda session: session.backup(Path(path)))

    async def _upkeep(self, what: str, work: Callable[[SupportsUpkeep], Awaitable[None]]) -> None:
        borrow = await self._lend()
        try:
            session = borrow.session
            if not isinstance(session, SupportsUpkeep):
                raise PoolError(
                    f"{what}() is for SQLite: pool {self.name!r} is {self._driver.system}, which "
                    f"has tools of its own for that",
                    pool=self.name,
                )
            await work(session)
        finally:
            borrow.end()

    # -- steering -------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """Return the figures of this moment."""
        if self._broker is None:
            return replace(_UNOPENED, max_size=self._config.max_size)
        return self._broker.stats()

    def suspend(self) -> None:
        """Hold borrowers back, within their timeouts, until `resume`; what is out stays out."""
        self._opened_broker().suspend()
        for reader in self._readers:
            reader.suspend()

    def resume(self) -> None:
        """Let the held ones go."""
        self._opened_broker().resume()
        for reader in self._readers:
            reader.resume()

    def recycle(self) -> None:
        """Replace every connection: idle ones now, the others when they come back."""
        self._opened_broker().recycle()
        for reader in self._readers:
            reader.recycle()

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Set new bounds, of each replica too; what is in use beyond them is closed later."""
        config = self._config
        size = config.max_size if max_size is None else max_size
        floor = min(config.min_size, size) if min_size is None else min_size
        self._config = replace(config, min_size=floor, max_size=size)
        if self._broker is not None:
            self._broker.resize(floor, size)
        for reader in self._readers:
            reader.resize(min_size=min_size, max_size=max_size)

    def _opened_broker(self) -> Broker:
        if self._broker is None:
            raise PoolClosed(f"pool {self.name!r} is not open yet: open() it first", pool=self.name)
        return self._broker


def _after_fork() -> None:
    """Give the child pools that are not open yet: connections cannot be shared with the parent."""
    for pool in list(_pools):
        if pool._broker is not None:
            _inherited.append(pool._broker)
        pool._broker = pool._opening = pool._shared = pool._router = None
        pool._readers = []


os.register_at_fork(after_in_child=_after_fork)
