"""What runs on the cache's own loop without being asked: bus, sweeper, pruning, recovery."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from tiercache._clock import Clock
from tiercache._flight import Flight, Load
from tiercache._portal import Portal
from tiercache.bus.base import Bus
from tiercache.callers import Caller
from tiercache.entry import FOREVER
from tiercache.errors import TierError
from tiercache.events import Event
from tiercache.happenings import Happenings
from tiercache.invalidation import Invalidation
from tiercache.lease import Leases
from tiercache.local import Local
from tiercache.outbox import Relay
from tiercache.telemetry.observer import Observer
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")

SWEEP_EVERY = 0.1
SWEEP_BATCH = 100
"""Slots that are looked at under one hold of the cache's lock: a tenth of a millisecond."""
SWEEP_SPELL = 0.0005
"""Seconds of sweeping without a rest, where nobody else has much to do."""
SWEEP_LONGEST = 0.001
"""Seconds of sweeping at most. Between the two it is as long as the sweeper waited for its turn, or
it would get nowhere beside a thread that never rests and gives up its turn every 5 ms."""
SWEEP_REST = 0.0001
"""Seconds of a rest. It is slept, because a thread that only offers the interpreter's lock takes it
back before others have woken up, and they wait for 5 ms; in the thread, because an event loop does
not sleep for less than a millisecond."""
FINISH_EVERY = 0.5
PRUNE_EVERY = 60.0
PRUNE_BATCH = 500


class Background:
    """Hears the bus and keeps the tiers tidy, for as long as the cache is open."""

    def __init__(
        self,
        *,
        source: str,
        portal: Portal,
        local: Local,
        tiers: Sequence[GuardedTier],
        bus: Bus | None,
        bus_timeout: float,
        invalidation: Invalidation,
        relay: Relay,
        leases: Leases,
        happenings: Happenings,
        clock: Clock,
        observer: Observer,
        caller: Caller,
    ) -> None:
        self._source = source
        self._portal = portal
        self._local = local
        self._tiers = tuple(tiers)
        self._bus = bus
        self._bus_timeout = bus_timeout
        self._invalidation = invalidation
        self._relay = relay
        self._leases = leases
        self._relaying = False
        self._happenings = happenings
        self._clock = clock
        self._observer = observer
        self._caller = caller
        self.bus_connected = False
        self.carrier = invalidation.carrier
        self.hello = Flight("the bus", (), (), 0.0)
        """Lands when the bus has answered for the first time."""
        Load([self.hello])

    def start(self) -> None:
        """Start what this cache needs."""
        if self._bus is not None:
            with self._local.lock:
                self._local.gate.trust(-FOREVER)
            bus = self._bus
            self._portal.spawn(lambda: bus.run(self))
        if self._local.tier is not None:
            self._portal.spawn(self._sweep)
        if any(tier.kind == "database" for tier in self._tiers):
            self._portal.spawn(self._prune)
        if self._tiers or self._bus is not None:
            self._portal.spawn(self._finish)
        if self._leases.tier is not None:
            self._portal.spawn(self._leases.keep)
        self.relay_rows()

    def relay_rows(self) -> None:
        """Start the relay if there is an outbox and it does not run yet."""
        if self._relay.tables and not self._relaying:
            self._relaying = True
            self._portal.spawn(self._relay.run)

    # -- the bus ------------------------------------------------------------------------------

    def heard(self, event: Event) -> None:
        """Take one event of the bus."""
        if event.source == self._source:
            return
        self._invalidation.apply(event)
        self._leases.heard(event)
        self._observer.bus_event(max(self._clock.time() - event.at, 0.0))
        if event.name is not None:
            self._portal.spawn(lambda: self._happenings.hear(event, self._caller))

    def gap(self, reason: str) -> None:
        """Trust nothing: events may have been missed. Before the first word nothing was trusted."""
        if self.hello.finished:
            self._invalidation.gap(reason)
        else:
            self._local.void_all()
        self._leases.wake_all()

    def stirred(self) -> None:
        """Look into the outbox."""
        self._relay.stirred()

    def connected(self, connected: bool) -> None:
        """Trust L1 for ``bus_timeout`` after what the bus has proven last.

        Beyond that, and while it is gone, only what was loaded here just now is served.
        """
        self.bus_connected = connected
        until = -FOREVER
        if connected and self._bus is not None:
            age = time.monotonic() - self._bus.proven  # the bus knows no clock but the real one
            until = self._clock.monotonic() - age + self._bus_timeout
        with self._local.lock:
            self._local.gate.trust(until)
        self._leases.connected(connected)
        if connected:
            self._local.flights.finish(self.hello, None)

    # -- tidying ------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            waited = 0.0
            while self._sweep_for(min(max(waited, SWEEP_SPELL), SWEEP_LONGEST)):
                began = time.monotonic()
                _rest()
                await asyncio.sleep(0)  # this loop has others to run, too
                waited = time.monotonic() - began

    def _sweep_for(self, spell: float) -> bool:
        """Drop what is over for so many seconds; return whether there is more."""
        until = time.monotonic() + spell
        while self._local.sweep(SWEEP_BATCH) == SWEEP_BATCH:
            if time.monotonic() >= until:
                return True
        return False

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY)
            for tier in self._tiers:
                try:
                    while await tier.prune(PRUNE_BATCH) == PRUNE_BATCH:
                        await asyncio.sleep(0.05)
                except TierError as error:
                    logger.info("expired entries were not pruned: %s", error)

    def restored(self) -> None:
        """Finish, now that a tier answers again, what it missed."""
        self._portal.spawn(self._replay)

    async def _finish(self) -> None:
        # For a tier that refused, and a bus that was away: no circuit closes when they are back.
        while True:
            await asyncio.sleep(FINISH_EVERY)
            if self._invalidation.pending and all(t.circuit == "closed" for t in self._tiers):
                await self._replay()

    async def _replay(self) -> None:
        try:
            await self._invalidation.replay(self._caller)
        except Exception:
            logger.exception("what could not be invalidated was not repeated")


def _rest() -> None:
    time.sleep(SWEEP_REST)
