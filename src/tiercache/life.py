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
from typing import Literal

from tiercache._hot import Hot
from tiercache.assembly import Parts, Settings
from tiercache.callers import Caller
from tiercache.engine import Engine
from tiercache.entry import FOREVER
from tiercache.errors import CacheClosed, TierError
from tiercache.loading import copier
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.writing import Writing

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
        self.parts = Parts(settings)
        _lives.add(self)
        weakref.finalize(self, settings.portal.close)

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
                self.parts = Parts(self.settings)
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
            self.parts = Parts(self.settings)
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
        if self.parts.guarded or self.settings.bus is not None:
            portal.run(self._disconnect)
        portal.close()

    async def _disconnect(self) -> None:
        if self.settings.bus is not None:
            await self.settings.bus.aclose()
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
