"""The life of a cache: opened at first use, closed, entered again, carried through a fork.

A `Life` is what decorated functions hold on to (`calls.Host`). Its parts are made anew when a
closed cache is entered again and in the child of a fork; its settings and figures stay.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Literal

from tiercache._hot import Hot
from tiercache.assembly import Parts, Settings, outbox_of
from tiercache.callers import Caller
from tiercache.engine import Engine
from tiercache.entry import FOREVER
from tiercache.errors import CacheClosed, PolicyError, TierError
from tiercache.loading import copier
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.writing import Writing

if TYPE_CHECKING:
    from poolkit import Pool
    from tiercache.outbox import OutboxTable

logger = logging.getLogger("tiercache")

CLOSE_TIMEOUT = 5.0
SETTLE_TIMEOUT = 0.25
"""Seconds that the first call waits for the bus to answer: a Redis tier's default timeout."""

State = Literal["new", "open", "closed", "forked"]


class Life:
    """One cache in one process, and where it stands."""

    def __init__(self, settings: Settings, policy: CachePolicy) -> None:
        self.settings = settings
        self.policy = policy
        """The defaults of its functions."""
        self.state: State = "new"
        self.opening = False
        """Whether it was opened just now and its bus has not answered yet."""
        self._settle_until = 0.0
        self.parts = self._made()
        _lives.add(self)
        weakref.finalize(self, settings.portal.close)

    def _made(self) -> Parts:
        """Return new parts; `PolicyError` for a policy that they cannot keep."""
        parts = Parts(self.settings)
        parts.engine.grant(self.policy)
        return parts

    # -- opening and closing ------------------------------------------------------------------

    def ready(self) -> None:
        """Open on first use; raise `CacheClosed` after closing."""
        if self.state == "open":
            return
        if self.state == "closed":
            raise CacheClosed(
                f"cache {self.settings.figures.name!r} is closed; enter it again (with cache: or "
                "async with cache:) to open it anew"
            )
        with self.parts.local.lock:
            if self.state == "forked":
                self.parts = self._made()
                self.state = "new"
            if self.state != "new":
                return
            self.state = "open"
            if self.settings.bus is not None:
                self.opening = True
                self._settle_until = self.settings.clock.monotonic() + SETTLE_TIMEOUT
            self.parts.background.start()

    async def settle(self, caller: Caller) -> None:
        """Wait for the bus to answer, no longer than its tier's timeout after opening.

        Until then L1 may not be trusted; so the first callers wait once, and find a cache that is
        whole. A server that does not answer at all costs them this one timeout: its circuit opens.
        """
        background = self.parts.background
        try:
            if background.carrier is not None:
                await caller.ask(background.carrier, "ping")
            left = self._settle_until - self.settings.clock.monotonic()
            if left > 0:
                await caller.wait(background.hello, left)
        except TierError:
            pass
        self.opening = False

    def reopen(self) -> None:
        """Open, also after closing."""
        if self.state in ("closed", "forked"):
            self.parts = self._made()
            self.state = "new"
        self.ready()

    async def open(self) -> None:
        """Open whole: each tier too, but for those that do not answer."""
        self.reopen()
        for tier in self.parts.guarded:
            try:
                await tier.open()
            except TierError as error:
                name = self.settings.figures.name
                logger.warning("cache %r goes on without a tier for now: %s", name, error)
        for outbox in self.settings.outboxes:
            try:
                await outbox.prepare()
            except Exception as error:  # noqa: BLE001 - whoever needs it tries again
                logger.info("%r is not ready yet: %s", outbox, error)
        if self.opening:
            await self.settle(self.task_caller)

    async def aclose(self) -> None:
        """Close from a task; a second time does nothing."""
        if self._shut():
            await self.parts.task_caller.settle(CLOSE_TIMEOUT)
            await asyncio.to_thread(self.settings.portal.close)
            await self._disconnect()

    def close(self) -> None:
        """Close from a thread; a second time does nothing."""
        if not self._shut():
            return
        portal = self.settings.portal
        portal.stop()
        if self.parts.guarded or self.settings.bus is not None or self.settings.outboxes:
            portal.run(self._disconnect)
        portal.close()

    async def _disconnect(self) -> None:
        if self.settings.bus is not None:
            await self.settings.bus.aclose()
        for outbox in self.settings.outboxes:
            await outbox.aclose()
        if self.parts.strict is not None:
            await self.parts.strict.aclose()
        for tier in self.parts.guarded:
            await tier.aclose()

    def _shut(self) -> bool:
        if self.state == "closed":
            return False
        self.state = "closed"
        local = self.parts.local
        self.parts.engine.closed = True
        with local.lock:
            local.gate.hold()
            local.void_all()
            loads = local.loads()
        for load in loads:
            load.cancel()
        return True

    def present(self) -> Parts:
        """Return the parts; in the child of a fork its own, not those of the parent."""
        if self.state == "forked":
            self.ready()
        return self.parts

    # -- what `watch` needs (`watch.Host`) --------------------------------------------------------

    def adopt_pool(self, pool: Pool) -> OutboxTable:
        """Return the outbox in a pool's database, from which rows are relayed from now on."""
        outboxes, parts = self.settings.outboxes, self.present()
        with parts.local.lock:
            if not any(outbox.serves(pool) for outbox in outboxes):
                outboxes += outbox_of(pool, self.settings.figures.name)
            found = next((outbox for outbox in outboxes if outbox.serves(pool)), None)
            if found is None:
                raise PolicyError(
                    f"{pool!r} is refused: nobody but this process sees a database in memory"
                )
            if self.settings.bus is None and not found.watched:
                logger.warning(
                    "cache %r watches a table and has no bus: of several processes only the one "
                    "that is first hears of a row; give it the pool, as Cache(bus=pool)",
                    self.settings.figures.name,
                )
            found.watched = True
            parts.background.relay_rows()
        return found

    def channel(self, pool: Pool) -> str | None:
        """Return where a trigger in that database can wake the relay; None if it has to look."""
        channel_in = getattr(self.settings.bus, "channel_in", None)
        channel: str | None = None if channel_in is None else channel_in(str(pool.driver.address))
        return channel

    # -- what decorated functions need (`calls.Host`) --------------------------------------------

    @property
    def engine(self) -> Engine:
        """Answers the calls."""
        return self.present().engine

    @property
    def writing(self) -> Writing:
        """Changes it on purpose."""
        return self.present().writing

    @property
    def task_caller(self) -> Caller:
        """How a task reaches it."""
        return self.present().task_caller

    @property
    def thread_caller(self) -> Caller:
        """How a thread reaches it."""
        return self.present().thread_caller

    @property
    def shared(self) -> bool:
        """Whether other processes see its keys."""
        return bool(self.settings.remotes)

    def adopt(self, owner: object, counters: Counters) -> None:
        """Count a function's figures in, for as long as it lives and after."""
        self.settings.figures.adopt(owner, counters)

    def connect(self, hot: Hot, counters: Counters, policy: CachePolicy) -> None:
        """Point a compiled function at this cache."""
        memory = self.settings.memory
        hot.bind(
            self.parts.local.gate,
            counters,
            self.settings.clock.monotonic,
            None if memory is None else memory.touch,
            copier(policy.copy),
            looks=self.parts.engine.names_slots,
        )


_lives: weakref.WeakSet[Life] = weakref.WeakSet()


def _after_fork() -> None:
    # The child has no background threads, and locks as they were in the middle of something: each
    # cache builds its parts anew at its next use. Closing the gate sends the hot paths there.
    for life in list(_lives):
        local = life.parts.local
        local.lock = threading.RLock()  # who may have held the old one stayed behind
        local.gate.until = -FOREVER
        local.gate.trusted_until = -FOREVER
        if life.state != "closed":
            life.state = "forked"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
