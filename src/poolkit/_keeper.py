"""Everything a pool does in the background, and the owner of every task that does it.

The keeper does the work that the books ask for (`Ledger`): hands connections to waiters, opens
some, closes others. It cleans what comes back dirty, pings and retires what lies idle, reports
what does not come back. Nobody else in the pool starts a task; closing waits for all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from poolkit import _leaks
from poolkit._ledger import Ledger, Work
from poolkit._retire import Ages, expiry, judge
from poolkit._session import Dirt, Reason, Slot
from poolkit.errors import ConnectFailed

if TYPE_CHECKING:
    from poolkit._clock import Clock
    from poolkit.config import Hook, PoolConfig
    from poolkit.driver import Driver, Session
    from poolkit.telemetry.observer import Observer

logger = logging.getLogger("poolkit")

Waiter = asyncio.Future[Slot["Session"]]
Books = Ledger["Session", Waiter]

FIRST_PAUSE, LONGEST_PAUSE, SPREAD = 0.1, 30.0, 0.1
"""Between attempts to connect: seconds, doubled each time, ± 10 %."""

_ABORTED = frozenset({Reason.LOST, Reason.BROKEN, Reason.EVICTED})


class Keeper:
    """The background of one open pool."""

    def __init__(
        self,
        ledger: Books,
        driver: Driver,
        config: PoolConfig,
        *,
        name: str,
        clock: Clock,
        observer: Observer,
        call: Callable[[Callable[[Any], Any], Slot[Session]], Coroutine[Any, Any, None]],
    ) -> None:
        self._ledger = ledger
        self._driver = driver
        self._config = config
        self._name = name
        self._clock = clock
        self._observer = observer
        self._call = call
        """Calls a function of the user with the connection, lent for that call."""
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connects: set[asyncio.Task[Any]] = set()
        self._alive: set[Slot[Session]] = set()
        """All that were made and not yet closed, also before they are in the books."""
        self._tending: asyncio.Task[Any] | None = None
        self._pinging = False
        self._failures = 0
        self._retry_at = 0.0
        self._probe = asyncio.Lock()
        self.last_error: BaseException | None = None
        """Why the last attempt to connect failed; None after one that did not."""

    # -- tasks --------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in a task that is kept until it ends."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def start(self) -> None:
        """Begin to look after what lies idle."""
        self._tending = self.spawn(self._tend())

    async def stop(self, timeout: float) -> None:
        """End every task: those that clean, close or pay debts get ``timeout`` seconds to do it."""
        self.stop_connecting()
        if self._tending is not None:
            self._tending.cancel()
        here = asyncio.current_task()
        mine = [task for task in self._tasks if task is not here]
        if mine:
            await asyncio.wait(mine, timeout=timeout)
        await self.kill()

    def stop_connecting(self) -> None:
        """Give up the attempts to connect that are under way."""
        for task in self._connects:
            task.cancel()

    async def kill(self) -> None:
        """Cancel every task and see it end."""
        here = asyncio.current_task()
        mine = [task for task in self._tasks if task is not here]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine, timeout=self._config.housekeeping_timeout)

    # -- the books' work ----------------------------------------------------------------------

    def perform(self, work: Work[Session, Waiter]) -> None:
        """Do what the books ask for. Never waits."""
        todo = [work]
        for work in todo:  # which grows meanwhile
            for waiter, slot in work.hand:
                if waiter.done():  # cancelled a moment ago and about to leave the queue
                    more = self._ledger.give_back(slot)
                    if more is not None:
                        todo.append(more)
                    continue
                slot.since = self._clock.monotonic()
                waiter.set_result(slot)
            for slot, reason in work.close:
                self._alive.discard(slot)
                self._observer.closed(reason.value)
                if reason in _ABORTED or slot.session.closed:
                    slot.session.abort()
                    todo.append(self._ledger.left())
                else:
                    self.spawn(self._close(slot.session))
            for _ in range(work.open):
                task = self.spawn(self._connect())
                self._connects.add(task)
                task.add_done_callback(self._connects.discard)

    async def _close(self, session: Session) -> None:
        try:
            await session.close(self._config.housekeeping_timeout)
        except Exception as error:  # noqa: BLE001  it is gone all the same
            logger.debug("pool %r: closing a connection failed: %s", self._name, error)
        finally:
            session.abort()
            self.perform(self._ledger.left())

    # -- connecting ---------------------------------------------------------------------------

    async def make(self) -> Slot[Session]:
        """Make one connection and prepare it with ``init``; the error says why not."""
        began = self._clock.monotonic()
        try:
            slot = await self._make()
        except Exception as error:
            self.last_error = error
            self._observer.connected(self._clock.monotonic() - began, error)
            raise
        self.last_error = None
        self._failures = 0
        self._observer.connected(self._clock.monotonic() - began, None)
        return slot

    async def _make(self) -> Slot[Session]:
        generation = self._ledger.generation
        session = await self._driver.connect(self._config.connect_timeout)
        now = self._clock.monotonic()
        slot = Slot(session, generation=generation, born=now, expires=self._expiry(now))
        self._alive.add(slot)
        if self._config.init is not None:
            slot.recording = True
            try:
                await self._initialise(self._config.init, slot)
            except BaseException:
                self._alive.discard(slot)
                session.abort()
                raise
            slot.recording = False
            slot.dirt = Dirt.NONE
        session.watch(lambda: self._lost(slot))
        return slot

    async def _initialise(self, init: Hook, slot: Slot[Session]) -> None:
        limit = asyncio.timeout(self._config.connect_timeout)
        try:
            async with limit:
                await self._call(init, slot)
        except TimeoutError as error:
            if not limit.expired():
                raise  # its own
            raise ConnectFailed(
                f"init= did not end within connect_timeout={self._config.connect_timeout:g} s on "
                f"a new connection of pool {self._name!r}",
                server=str(self._driver.address),
                pool=self._name,
            ) from error

    def _expiry(self, now: float) -> float | None:
        lifetime = self._config.max_lifetime
        if lifetime is None:
            return None
        others = [slot.expires for slot in self._alive if slot.expires is not None]
        return expiry(now, lifetime, others, self._ledger.max_size)

    async def _connect(self) -> None:
        """Open one for the waiters or the floor, however long it takes, while it is needed."""
        slot = None
        try:
            while slot is None and self._ledger.needed():
                if self._failures:
                    async with self._probe:  # one knocks, the others listen
                        slot = await self._attempt()
                else:
                    slot = await self._attempt()
        finally:
            done = self._ledger.not_opened() if slot is None else self._ledger.opened(slot)
            self.perform(done)

    async def _attempt(self) -> Slot[Session] | None:
        pause = self._retry_at - self._clock.monotonic() if self._failures else 0.0
        if pause > 0:
            await asyncio.sleep(pause)
            if not self._ledger.needed():
                return None
        before = self._failures
        try:
            return await self.make()
        except Exception as error:  # noqa: BLE001  it is told to those whose wait runs out
            if self._failures != before:
                return None  # another attempt of the same moment has set the pause
            self._failures += 1
            step = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 16))
            step *= 1 + SPREAD * (2 * self._clock.luck() - 1)
            self._retry_at = self._clock.monotonic() + step
            logger.warning(
                "pool %r: cannot connect (%s); next attempt in %.1f s", self._name, error, step
            )
            return None

    # -- cleaning -----------------------------------------------------------------------------

    def clean(self, slot: Slot[Session]) -> None:
        """Clean a connection that was laid aside, then put it back to work or replace it."""
        self.spawn(self._clean(slot))

    async def _clean(self, slot: Slot[Session]) -> None:
        reason: Reason | None = Reason.BROKEN
        try:
            limit = self._config.housekeeping_timeout
            async with asyncio.timeout(limit):
                reason = await self._make_clean(slot, limit)
        except Exception as error:  # noqa: BLE001  whatever it was, it is replaced
            logger.debug("pool %r: a connection cannot be cleaned: %s", self._name, error)
        finally:
            if reason is None and not slot.session.closed:
                now = self._clock.monotonic()
                slot.dirt, slot.idle_since = Dirt.NONE, now
                self.perform(self._ledger.restore(slot))
            else:
                self.perform(self._ledger.lost_aside(slot, reason or Reason.LOST))

    async def _make_clean(self, slot: Slot[Session], limit: float) -> Reason | None:
        """Bring the session into order; return why that is not possible."""
        session, how = slot.session, self._config.reset
        if session.unsettled:
            await session.settle()
        elif session.in_transaction:
            logger.warning(
                "pool %r: a connection was returned with a transaction open: rolled back; end it, "
                "or use 'async with connection.transaction()'",
                self._name,
            )
        if session.closed:
            return Reason.LOST
        await session.rollback(limit)
        if how == "always" or (slot.dirt and how != "never"):
            if not await session.reset(slot.dirt, limit):
                return Reason.UNCLEAN
            for sql, args in slot.replay:
                await session.execute(sql, args, limit)
        if callable(how):
            try:
                await self._call(how, slot)
            except Exception:
                logger.exception("pool %r: the reset function failed", self._name)
                return Reason.HOOK
        return None

    # -- looking after what lies idle ----------------------------------------------------------

    def _lost(self, slot: Slot[Session]) -> None:
        """Replace an idle connection whose other side hung up."""
        if slot in self._ledger.idle:
            self.perform(self._ledger.lost_idle([(slot, Reason.LOST)]))

    async def _tend(self) -> None:
        limits = (self._config.idle_timeout, self._config.keepalive, self._config.leak_threshold)
        rhythm = min((limit / 4 for limit in limits if limit is not None), default=15.0)
        while True:
            now = self._clock.monotonic()
            again = min(self._look_over(now), now + rhythm)
            await asyncio.sleep(max(again - now, 0.001))

    def _look_over(self, now: float) -> float:
        """Retire, ping and report what is due; return when to look again."""
        ledger, config = self._ledger, self._config
        ages = Ages(config.idle_timeout, config.keepalive, ledger.min_size)
        verdict = judge(ledger.idle, ledger.size, now, ages)
        if verdict.retire:
            self.perform(ledger.lost_idle(verdict.retire))
        if verdict.ping and not self._pinging:
            self._pinging = True
            self.spawn(self._ping_in_turn(verdict.ping))
        if config.leak_threshold is not None:
            self._report_leaks(now, config.leak_threshold)
        return now + 60.0 if verdict.again is None else verdict.again

    async def _ping_in_turn(self, slots: list[Slot[Session]]) -> None:
        """Ping one after the other, so that the rest can be lent meanwhile."""
        try:
            for slot in slots:
                if slot in self._ledger.idle:
                    slot.pinged = self._clock.monotonic()
                    self._ledger.inspect(slot)
                    await self._ping(slot)
        finally:
            self._pinging = False

    async def _ping(self, slot: Slot[Session]) -> None:
        reason: Reason | None = Reason.BROKEN
        try:
            await slot.session.ping(self._config.housekeeping_timeout)
            reason = None
        except Exception as error:  # noqa: BLE001  that is what a ping is for
            logger.debug("pool %r: an idle connection does not answer: %s", self._name, error)
        finally:
            if reason is None and not slot.session.closed:
                self.perform(self._ledger.restore(slot))
            else:
                self.perform(self._ledger.lost_aside(slot, Reason.BROKEN))

    def _report_leaks(self, now: float, threshold: float) -> None:
        for slot in self._ledger.used:
            if slot.reported or slot.dirt & Dirt.LISTENING:  # a listener is meant to stay out
                continue
            if now - slot.since >= threshold:
                slot.reported = True
                self._observer.leaked()
                logger.warning("pool %r: %s", self._name, _leaks.report(slot, now))
