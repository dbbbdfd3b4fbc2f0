"""Single flight across processes: leases of this process that others wait for, and the reverse.

The lease that a miss leaves in the first shared tier says that somebody is loading. Others leave it
alone and wait: for the event that tells of its landing, for an invalidation of the key, or for the
lease's end, whichever is first; then they look again. The holder keeps its leases alive while it
loads, so one that has died or stands still is replaced within `LEASE_TTL`, and its late fill is
refused. Nothing here decides what is stale: a fill replaces exactly its lease, whoever waits.

- *A wait is registered before the lease is asked for*, so no event falls in between.
- *Who cannot be woken does not wait*: without a bus, or while it is away, everybody loads.
- *An invalidation gives up the leases of the loads that it made void*: what they bring nobody may
  read, so nobody shall wait for it.
- *Every wait ends*: `WAIT_LIMIT` in all, one lease for a load inside a load. Two processes that
  each wait for what the other loads are no deadlock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from tiercache._clock import Clock
from tiercache._flight import Flight, Load
from tiercache._portal import Portal
from tiercache.bus.base import Bus
from tiercache.callers import Caller
from tiercache.errors import TierError
from tiercache.events import Event
from tiercache.local import Local
from tiercache.tiers.base import Basis
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")

LEASE_TTL: float = 5.0
"""Seconds that a lease of the single flight outlives its holder; renewed three times as often."""

LONE_TTL: Final = 300.0
"""Seconds of a lease that nobody waits for: what a load may take there."""

WAIT_LIMIT: float = 30.0
"""Seconds after which who waits for the loads of others loads by itself."""

_JITTER: Final = 0.1


class Wait:
    """Somebody who waits for some keys; woken once."""

    __slots__ = ("failed", "flight", "keys", "tags")

    def __init__(self, keys: Iterable[str], tags: Iterable[str]) -> None:
        self.keys = frozenset(keys)
        self.tags = frozenset(tags)
        self.failed: frozenset[str] = frozenset()
        """Keys whose loads came to nothing: to wait for the next one would be to queue up."""
        self.flight = Flight("a load elsewhere", (), (), 0.0)
        Load([self.flight])

    async def over(self, seconds: float, caller: Caller) -> None:
        """Sleep until it is woken or the time has passed."""
        if seconds > 0:
            await caller.wait(self.flight, seconds)


class Leases:
    """What one cache of one process holds and waits for."""

    def __init__(
        self,
        local: Local,
        tiers: Sequence[GuardedTier],
        bus: Bus | None,
        source: str,
        clock: Clock,
        portal: Portal,
        caller: Caller,
    ) -> None:
        self.tier = tiers[0] if tiers and bus is not None else None
        """Where the leases are that others wait for; None where nobody could be woken."""
        self._connected = False
        self._local = local
        self._bus = bus
        self._source = source
        self._clock = clock
        self._portal = portal
        self._caller = caller
        self._waits: set[Wait] = set()
        self._held: dict[bytes, tuple[Basis, Flight]] = {}

    # -- holding ------------------------------------------------------------------------------

    def ttl(self, tier: GuardedTier) -> float:
        """Return the seconds that a lease in this tier is taken for."""
        return LEASE_TTL if tier.origin is self.tier else LONE_TTL

    def hold(self, tier: GuardedTier, basis: Basis, flight: Flight) -> None:
        """Keep the lease of this flight alive from now on."""
        if tier.origin is self.tier:
            with self._local.lock:
                self._held[basis.token] = basis, flight

    def drop(self, basis: Basis) -> None:
        """Keep it alive no more."""
        with self._local.lock:
            self._held.pop(basis.token, None)

    def holder(self, token: bytes) -> Load | None:
        """Return the load of this cache that holds the lease, if it is one of ours."""
        held = self._held.get(token)
        return None if held is None else held[1].load

    async def keep(self) -> None:
        """Renew what is held, again and again, until cancelled."""
        while True:
            await asyncio.sleep(LEASE_TTL / 3)
            await self.renew()

    async def renew(self) -> None:
        """Let every lease that is held live `LEASE_TTL` from now, in one operation."""
        with self._local.lock:
            for token, (_, flight) in tuple(self._held.items()):
                if flight.load is None or flight.load.dead:
                    del self._held[token]
            bases = [basis for basis, _ in self._held.values()]
        if not bases or self.tier is None:
            return
        try:
            alive = await self.tier.renew(bases, LEASE_TTL)
        except TierError as error:
            logger.debug("leases were not renewed: %s", error)
            return
        for basis, lives in zip(bases, alive, strict=True):
            if not lives:
                self.drop(basis)

    # -- waiting ------------------------------------------------------------------------------

    @property
    def patient(self) -> bool:
        """Whether to wait for others at all."""
        return self.tier is not None and self._connected

    @contextmanager
    def waiting(self, keys: Iterable[str], tags: Iterable[str]) -> Iterator[Wait]:
        """Be woken by what happens to these keys inside the block."""
        wait = Wait(keys, tags)
        with self._local.lock:
            self._waits.add(wait)
        try:
            yield wait
        finally:
            with self._local.lock:
                self._waits.discard(wait)

    def _wake(self, waits: Iterable[Wait]) -> None:
        for wait in waits:
            self._local.flights.finish(wait.flight, None)

    def wake_all(self) -> None:
        """Have everybody look again: an event may have been missed, or none may come."""
        self._wake(tuple(self._waits))

    # -- telling and hearing ------------------------------------------------------------------

    async def land(
        self, landed: Sequence[str], caller: Caller, *, failed: Sequence[str] = ()
    ) -> None:
        """Wake whoever waits, here and elsewhere; ``failed`` are the loads that came to nothing."""
        if not landed and not failed:
            return
        event = Event(
            self._source, landed=tuple(landed), failed=tuple(failed), at=self._clock.time()
        )
        self.heard(event)
        assert self._bus is not None
        if not self._connected:
            return
        try:
            await caller.publish(self._bus, [event.encode()])
        except TierError as error:
            logger.debug("those who wait look again when the lease has ended: %s", error)

    def heard(self, event: Event) -> None:
        """Wake those whom a landing concerns."""
        keys = {*event.landed, *event.failed}
        if not keys or not self._waits:
            return
        with self._local.lock:
            woken = [wait for wait in self._waits if not wait.keys.isdisjoint(keys)]
            for wait in woken:
                wait.failed = wait.failed.union(event.failed)
        self._wake(woken)

    def connected(self, connected: bool) -> None:
        """Learn whether the bus is there; without it nobody is woken, so nobody goes on waiting."""
        self._connected = connected
        if not connected:
            self.wake_all()

    def invalidated(self, keys: Sequence[str], tags: Sequence[str], *, everything: bool) -> None:
        """Wake who waits for any of this, and give up the leases whose loads it made void.

        Those of ``keys`` are gone with their slots.
        """
        if not self._waits and not self._held:
            return
        with self._local.lock:
            woken = [wait for wait in self._waits if everything or _concerns(wait, keys, tags)]
            void = [
                basis
                for basis, flight in self._held.values()
                if everything or not set(tags).isdisjoint(flight.tags or ())
            ]
            for basis in void:
                del self._held[basis.token]
        self._wake(woken)
        if void:
            self._portal.spawn(lambda: self._give_up(void))

    async def _give_up(self, bases: Sequence[Basis]) -> None:
        assert self.tier is not None
        try:
            awaited = await self.tier.release(bases)
        except TierError:
            return  # they end by themselves
        keys = [basis.key for basis, waited in zip(bases, awaited, strict=True) if waited]
        await self.land(keys, self._caller)


def _concerns(wait: Wait, keys: Sequence[str], tags: Sequence[str]) -> bool:
    return not (wait.keys.isdisjoint(keys) and wait.tags.isdisjoint(tags))


class Patience:
    """How long one load goes on waiting for those of others."""

    __slots__ = ("_until",)

    def __init__(self, limit: float | None, *, nested: bool) -> None:
        longest = LEASE_TTL if nested else WAIT_LIMIT
        self._until = time.monotonic() + (longest if limit is None else min(longest, limit))

    @property
    def over(self) -> bool:
        """Whether it has waited long enough."""
        return time.monotonic() >= self._until

    def for_lease(self, remaining: float) -> float:
        """Return the seconds to wait for a lease that ends so soon: a little longer than that."""
        jitter = random.random() * _JITTER  # noqa: S311 - not all who wait ask at one moment
        return min(remaining + jitter, self._until - time.monotonic())


def is_blocked_by(load: Load, waiter: Load, caller: Caller) -> bool:
    """Whether a load of this process cannot end while ``waiter`` waits for it."""
    if load.loop is None and load.thread is not None and load.thread is waiter.thread:
        return True
    return load.reaches(waiter) is not None or not caller.may_join(load)
