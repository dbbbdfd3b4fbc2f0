"""Borrowing and giving back: the only module where a caller waits for a connection.

The usual case never waits and never creates a task: `take` pops an idle connection, `give_back`
pushes it. Everything else is off that path: queueing, checking a connection that lay idle,
cleaning one that came back dirty (the keeper does that, not the releaser).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any

from poolkit import _leaks
from poolkit._keeper import Books, Keeper, Waiter
from poolkit._ledger import Ledger
from poolkit._session import Reason, Slot
from poolkit._statements import Borrow, logger
from poolkit.errors import AcquireTimeout, PoolClosed, PoolError, TooManyWaiters
from poolkit.stats import PoolStats

if TYPE_CHECKING:
    from poolkit._clock import Clock
    from poolkit.config import PoolConfig
    from poolkit.driver import Driver, Session
    from poolkit.telemetry.observer import Observer

_FRESH = 0.05
"""Seconds of idleness within which a hang-up would have been noticed by the loop."""
_NOTABLE = 0.001
"""A wait longer than this gets a span."""


class Broker:
    """One open pool, from `open` to `close`; belongs to the loop it was made in."""

    def __init__(
        self,
        driver: Driver,
        config: PoolConfig,
        *,
        owner: Any,
        name: str,
        clock: Clock,
        observer: Observer,
        dress: Callable[[Borrow], Any],
    ) -> None:
        self.owner = owner
        self.name = name
        self.config = config
        self.clock = clock
        self.observer = observer
        self._driver = driver
        self._now = clock.monotonic
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        """With the loop's current task it stands for ``get_running_loop``, which asks the kernel
        for the process each time (Python 3.11): a tenth of the cost of a borrow."""
        self._ledger: Books = Ledger(min_size=config.min_size, max_size=config.max_size)
        self._keeper = Keeper(
            self._ledger,
            driver,
            config,
            name=name,
            clock=clock,
            observer=observer,
            call=self._call,
        )
        self._dress = dress
        """Makes of a borrow what users get."""
        self._fresh = -1.0 if config.setup is not None else min(_FRESH, config.validate_after)
        self._always_clean = config.reset == "always" or callable(config.reset)
        self._never_clean = config.reset == "never"
        self._tracing = config.leak_threshold is not None
        self._waits = observer.waits if observer.recording else None
        self._uses = observer.uses if observer.recording else None
        self._drained = asyncio.Event()

    # -- opening and closing ------------------------------------------------------------------

    async def open(self) -> None:
        """Connect up to the floor, at least once, or raise why not; not at all if ``lazy``."""
        ledger, keeper = self._ledger, self._keeper
        keeper.start()
        if self.config.lazy:
            keeper.perform(ledger.resize(ledger.min_size, ledger.max_size))
            return
        ledger.connecting = max(1, ledger.min_size)
        attempts = [keeper.spawn(keeper.make()) for _ in range(ledger.connecting)]
        try:
            await asyncio.wait(attempts, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            failure = self._enter(attempts)
        if failure is not None:
            raise failure

    def _enter(self, attempts: list[asyncio.Task[Slot[Session]]]) -> BaseException | None:
        """Enter what was made; if one failed or is missing the pool does not open at all."""
        ledger, failure = self._ledger, None
        ledger.closing = not all(_succeeded(attempt) for attempt in attempts)
        for attempt in attempts:
            if _succeeded(attempt):
                self._keeper.perform(ledger.opened(attempt.result()))
                continue
            attempt.cancel()
            self._keeper.perform(ledger.not_opened())
            if attempt.done() and not attempt.cancelled():
                failure = failure or attempt.exception()
        return failure

    @property
    def closing(self) -> bool:
        """Whether it is closed or being closed."""
        return self._ledger.closing

    @property
    def orphaned(self) -> bool:
        """Whether its loop was closed without closing it."""
        return self._loop.is_closed()

    async def close(self, timeout: float) -> None:
        """Refuse new borrowers, wait ``timeout`` seconds for what is out, then abort it."""
        ledger, keeper = self._ledger, self._keeper
        refused, work = ledger.close()
        for waiter in refused:
            if not waiter.done():
                waiter.set_exception(self._closed())
        keeper.stop_connecting()
        keeper.perform(work)
        try:
            if ledger.used:
                async with asyncio.timeout(timeout):
                    await self._drained.wait()
        except TimeoutError:
            logger.warning("pool %r: closed with %d in use", self.name, len(ledger.used))
        finally:
            self._abort_used()
        try:
            await keeper.stop(self.config.housekeeping_timeout)
        except asyncio.CancelledError:
            await keeper.kill()
            raise

    def _abort_used(self) -> None:
        for slot in list(self._ledger.used):
            slot.session.abort()
            self._keeper.perform(self._ledger.lost_used(slot, Reason.CLOSED))

    def _closed(self) -> PoolClosed:
        return PoolClosed(
            f"pool {self.name!r} is closed: open() it again, or keep it open for longer",
            pool=self.name,
        )

    # -- borrowing ----------------------------------------------------------------------------

    def take(self) -> Borrow | None:
        """Borrow an idle connection without waiting, if one is known to be good."""
        ledger = self._ledger
        idle = ledger.idle
        if not idle or get_ident() != self._thread:
            return None
        task = asyncio.current_task(self._loop)
        if task is None:
            return None  # another loop of this thread, or none: it is looked into off this path
        slot, now = idle[-1], self._now()
        if now - slot.idle_since > self._fresh or slot.session.closed or ledger.take() is None:
            return None
        slot.since = now
        slot.holder = task
        if self._waits is not None:
            self._waits.append(0.0)
        if self._tracing:
            slot.origin = _leaks.origin()
        return Borrow(slot, self)

    async def borrow(self, timeout: float | None) -> Borrow:
        """Borrow a connection, waiting up to ``timeout`` seconds for one."""
        borrow = self.take()
        if borrow is not None:
            return borrow
        self._check()
        began = self._now()
        try:
            deadline = None if timeout is None else began + timeout
            slot = await self._obtain(deadline, timeout)
        except BaseException as error:
            if isinstance(error, Exception):
                self.observer.waited(self._now() - began, error)
            raise
        waited = self._now() - began
        if self._waits is not None:
            self._waits.append(waited)
        if waited > _NOTABLE:
            self.observer.waited(waited, None)
        return Borrow(slot, self)

    async def _obtain(self, deadline: float | None, timeout: float | None) -> Slot[Session]:
        while True:
            slot = self._ledger.take() or await self._queue(deadline, timeout)
            slot.since = now = self._now()
            slot.holder = asyncio.current_task(self._loop)
            slot.origin = _leaks.origin() if self._tracing else None
            if now - slot.idle_since <= self._fresh and not slot.session.closed:
                return slot  # as those are that come straight from another borrower
            try:
                good = await self._good(slot, deadline, timeout)
            except BaseException as error:
                broken = Reason.HOOK if isinstance(error, Exception) else Reason.BROKEN
                self._strike(slot, broken)
                raise
            if good:
                return slot
            self._strike(slot, Reason.LOST)

    async def _good(
        self, slot: Slot[Session], deadline: float | None, timeout: float | None
    ) -> bool:
        """Check a connection that lay idle, and prepare it; False if it is to be replaced."""
        session, config = slot.session, self.config
        lain = self._now() - slot.idle_since
        if session.closed or (lain > _FRESH and session.stale()):
            return False
        if lain <= config.validate_after and config.setup is None:
            return True
        left = None if deadline is None else max(deadline - self._now(), 0.0)
        try:
            async with asyncio.timeout(left):
                if lain > config.validate_after:
                    try:
                        await session.ping(config.housekeeping_timeout)
                    except Exception as error:  # noqa: BLE001  that is what a ping is for
                        logger.debug("pool %r: a connection does not answer: %s", self.name, error)
                        return False
                if config.setup is not None:
                    await self._call(config.setup, slot)
        except TimeoutError:
            if deadline is None or self._now() < deadline:
                raise  # of the function itself
            raise self._too_late(timeout) from None
        return True

    async def _call(self, hook: Callable[[Any], Any], slot: Slot[Session]) -> None:
        """Call a function of the user with the connection, lent for that call."""
        borrow = Borrow(slot, self)
        try:
            await hook(self._dress(borrow))
        finally:
            borrow.cut()

    def _strike(self, slot: Slot[Session], reason: Reason) -> None:
        if slot in self._ledger.used:
            slot.session.abort()
            self._keeper.perform(self._ledger.lost_used(slot, reason))
            self._note_drained()

    async def _queue(self, deadline: float | None, timeout: float | None) -> Slot[Session]:
        ledger = self._ledger
        if ledger.closing:
            raise self._closed()
        self._refuse_hopeless()
        waiter: Waiter = self._loop.create_future()
        self._keeper.perform(ledger.enqueue(waiter))
        timer = None
        if deadline is not None:
            left = max(deadline - self._now(), 0.0)
            timer = self._loop.call_later(left, self._expire, waiter, timeout)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())  # handed over in the moment of the cancellation
            else:
                ledger.forget(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, waiter: Waiter, timeout: float | None) -> None:
        if not waiter.done():
            error = self._too_late(timeout)
            self._ledger.forget(waiter)
            waiter.set_exception(error)

    def _refuse_hopeless(self) -> None:
        """Refuse a wait that is too long a queue, or that could never end."""
        ledger, limit = self._ledger, self.config.max_waiting
        if limit is not None:
            growing = ledger.max_size - len(ledger.used)  # these wait for the world, not for others
            if len(ledger.waiting) >= limit + max(growing, 0):
                raise TooManyWaiters(
                    f"{len(ledger.waiting)} requests wait for a connection of pool {self.name!r} "
                    f"and max_waiting is {limit}: try later, or raise max_size or max_waiting",
                    pool=self.name,
                    waiting=len(ledger.waiting),
                    max_waiting=limit,
                )
        me = asyncio.current_task(self._loop)
        if len(ledger.used) >= ledger.max_size and all(slot.holder is me for slot in ledger.used):
            raise PoolError(
                f"this task holds all {ledger.max_size} connections of pool {self.name!r} and "
                f"asks for one more, which would wait for itself: give one back first, or raise "
                f"max_size",
                pool=self.name,
            )

    def _too_late(self, timeout: float | None) -> AcquireTimeout:
        ledger, now = self._ledger, self._now()
        ledger.timeouts += 1
        stats = self.stats()
        oldest = min(ledger.used, key=lambda slot: slot.since, default=None)
        holder = None if oldest is None else _leaks.describe(oldest, now)
        last_error = self._keeper.last_error
        return AcquireTimeout(
            f"no connection of pool {self.name!r} came free in {timeout:g} s: size {stats.size} "
            f"of {stats.max_size}, {stats.used} used, {stats.idle} idle, {stats.waiting} waiting"
            + (f"; held longest by {holder}" if holder else "")
            + (f"; the last attempt to connect failed: {last_error}" if last_error else "")
            + ": hold connections for less long, or raise max_size or acquire_timeout",
            pool=self.name,
            timeout=timeout or 0.0,
            size=stats.size,
            used=stats.used,
            idle=stats.idle,
            waiting=stats.waiting,
            max_size=stats.max_size,
            holder=holder,
            last_error=last_error,
        )

    def _check(self) -> None:
        if self._ledger.closing:
            raise self._closed()
        self.check_loop()

    def check_loop(self) -> None:
        """Refuse the use from another loop than the pool's own."""
        if asyncio.get_running_loop() is not self._loop:
            way_out = (
                "which has ended: open() it again, and close it before its loop ends"
                if self.orphaned
                else "where it stays: use sibling() for a pool here"
            )
            raise PoolClosed(
                f"pool {self.name!r} belongs to another event loop, {way_out}", pool=self.name
            )

    # -- giving back --------------------------------------------------------------------------

    def give_back(self, slot: Slot[Session]) -> None:
        """Take a connection back. Never waits: what is dirty is cleaned by the keeper."""
        ledger, session, now = self._ledger, slot.session, self._now()
        if slot not in ledger.used:
            return  # the pool was closed over it
        slot.holder = None
        if self._uses is not None:
            self._uses.append(now - slot.since)
        if slot.reported:
            slot.reported = False
            logger.warning(
                "pool %r: a connection that was reported as leaked came back after %.3g s",
                self.name, now - slot.since,
            )  # fmt: skip
        work = None
        if slot.running:
            work = ledger.lost_used(slot, Reason.BROKEN)  # another task is in mid-statement
        elif session.at_rest and (not slot.dirt or self._never_clean) and not self._always_clean:
            if slot.expires is not None and slot.expires <= now:
                work = ledger.lost_used(slot, Reason.LIFETIME)
            else:
                slot.idle_since = now
                work = ledger.give_back(slot)
        elif session.closed:
            work = ledger.lost_used(slot, Reason.LOST)
        else:
            ledger.lay_aside(slot)
            self._keeper.clean(slot)
        if work is not None:
            self._keeper.perform(work)
        if ledger.closing:
            self._note_drained()

    def has_one_to_share(self) -> bool:
        """Whether a connection is free, for a statement to run beside those of others.

        It counts as a borrow that has come back already.
        """
        ledger = self._ledger
        if len(ledger.used) >= ledger.max_size or ledger.waiting or ledger.suspended:
            return False
        if ledger.closing or get_ident() != self._thread:
            return False
        if asyncio.current_task(self._loop) is None:
            return False
        ledger.acquired += 1
        ledger.released += 1
        return True

    def _note_drained(self) -> None:
        if self._ledger.closing and not self._ledger.used:
            self._drained.set()

    def heed(self, slot: Slot[Session], error: BaseException) -> None:
        """Leave the whole generation if the error says that the server is going away."""
        fault = self._driver.fault(error)
        if not fault.evict or slot.generation != self._ledger.generation:
            return
        if fault.sqlstate == "25006" and slot.reading:
            return  # the transaction was read-only, not the server
        logger.warning(
            "pool %r: all its connections are replaced after SQLSTATE %s: %s",
            self.name, fault.sqlstate, error,
        )  # fmt: skip
        self._keeper.perform(self._ledger.recycle(Reason.EVICTED))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in a task that the pool owns and waits for when it closes."""
        return self._keeper.spawn(work)

    # -- steering -----------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """Return the figures of this moment."""
        ledger = self._ledger
        return PoolStats(
            size=ledger.size,
            idle=len(ledger.idle),
            used=len(ledger.used),
            connecting=ledger.connecting,
            waiting=len(ledger.waiting),
            max_size=ledger.max_size,
            acquired=ledger.acquired,
            released=ledger.released,
            timeouts=ledger.timeouts,
        )

    def suspend(self) -> None:
        """Hold all borrowers back."""
        self._ledger.suspend()

    def resume(self) -> None:
        """Let them go."""
        self._keeper.perform(self._ledger.resume())

    def recycle(self) -> None:
        """Replace every connection: idle ones now, the others when they come back."""
        self._keeper.perform(self._ledger.recycle())

    def resize(self, min_size: int, max_size: int) -> None:
        """Set new bounds."""
        self._keeper.perform(self._ledger.resize(min_size, max_size))


def _succeeded(attempt: asyncio.Task[Any]) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None
