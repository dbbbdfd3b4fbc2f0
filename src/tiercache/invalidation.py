"""What an invalidation does: to the tiers below, to the bus, and to this process.

Bottom first, own L1 last: L3, L2 with the event, the bus, L1. Were L2 emptied before L3, a reader
could copy the old value up between the two; were L1 emptied first, it could refill from L2.
A pass in which a tier failed says so in its event, is remembered, and is repeated whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Literal

from tiercache._clock import Clock
from tiercache._recovery import Recovery
from tiercache.bus.base import Bus
from tiercache.callers import Caller
from tiercache.errors import TierError
from tiercache.events import Event, Scalar
from tiercache.lease import Leases
from tiercache.local import Local
from tiercache.stats import Tally
from tiercache.telemetry.observer import Observer, Scope
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")

_UNOBSERVED: Final[AbstractContextManager[None]] = nullcontext()


@dataclass(frozen=True, slots=True)
class Change:
    """What is invalidated, and what the others are told; with a name, an application event."""

    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    name: str | None = None
    payload: Mapping[str, Scalar] = field(default_factory=dict)
    origin: Literal["local", "outbox"] = "local"

    @property
    def invalidates(self) -> bool:
        """Whether it names anything."""
        return bool(self.keys or self.tags or self.everything)


class Invalidation:
    """Invalidates keys, tags or everything, here and everywhere."""

    def __init__(
        self,
        source: str,
        local: Local,
        tiers: Sequence[GuardedTier],
        bus: Bus | None,
        recovery: Recovery,
        tally: Tally,
        clock: Clock,
        observer: Observer,
        leases: Leases,
    ) -> None:
        self._source = source
        self._local = local
        self._tiers = tuple(tiers)
        self._bus = bus
        self.carrier = next(
            (tier for tier in tiers if bus is not None and bus.rides_on(tier.tier)), None
        )
        """The tier that sends the events it is given together with its own deletions."""
        self._recovery = recovery
        self._tally = tally
        self._clock = clock
        self._observer = observer
        self._leases = leases
        self.keep: Callable[[Change], None] | None = None
        """Writes down, where it outlives this process, what could not be invalidated."""

    async def run(self, change: Change, caller: Caller) -> bool:
        """Carry a change out and tell the others; True when all tiers and the bus were reached."""
        if not change.invalidates:
            return await self._pass(change, caller)
        with self.observed(change):
            return await caller.shielded(lambda: self._pass(change, caller))

    def observed(self, change: Change) -> AbstractContextManager[object]:
        """Report one change while the block carries it out."""
        if not self._observer.records:
            return _UNOBSERVED
        scope: Scope = "all" if change.everything else "tag" if change.tags else "key"
        return self._observer.invalidating(scope, len(change.keys))

    async def run_merged(self, change: Change, caller: Caller, number: int) -> bool:
        """Carry out at once what ``number`` changes name, each of which is `observed` apart."""
        self._tally.invalidations[change.origin] += number - 1
        return await caller.shielded(lambda: self._pass(change, caller))

    async def _pass(self, change: Change, caller: Caller) -> bool:
        number = self._recovery.number
        complete, told = True, False
        failed: TierError | None = None
        try:
            for tier in reversed(self._tiers) if change.invalidates else ():
                events = [self._event(change, complete)] if tier is self.carrier else []
                try:
                    if change.everything:
                        await caller.ask(tier, "clear", events)
                    else:
                        await caller.ask(tier, "invalidate", change.keys, change.tags, events)
                    told = told or bool(events)
                except TierError as error:
                    complete, failed = False, error
            if self._bus is not None and not told:
                try:
                    await self._publish(self._bus, self._event(change, complete), caller)
                except TierError as error:
                    complete, failed = False, error
            if complete:
                self._settle(change, number)
            else:
                self.remember(change)
        finally:
            self._void(change)
            if change.invalidates:
                self._tally.invalidations[change.origin] += 1
        if failed is not None and not failed.skipped:
            logger.warning("an invalidation is kept until every tier answers again: %s", failed)
        return complete

    def _event(self, change: Change, complete: bool) -> bytes:
        return Event(
            self._source,
            change.keys,
            change.tags,
            change.everything,
            change.name,
            change.payload,
            complete,
            self._clock.time(),
        ).encode()

    def _void(self, change: Change | Event) -> None:
        if change.everything:
            self._local.void_all()
        else:
            self._local.void(change.keys, change.tags)
        self._leases.invalidated(change.keys, change.tags, everything=change.everything)

    def remember(self, change: Change | Event) -> None:
        """Go round the shared tiers for it until it has been invalidated everywhere."""
        with self._local.lock:
            known = self._recovery.has(change)
            self._recovery.add(change)
        if known or self.keep is None or not isinstance(change, Change):
            return
        if change.origin == "local":  # what comes from the outbox is still there
            self.keep(change)

    def _settle(self, change: Change, number: int) -> None:
        with self._local.lock:
            self._recovery.settle(change, number)

    async def _publish(self, bus: Bus, event: bytes, caller: Caller) -> None:
        carrier = self.carrier
        if carrier is not None and carrier.circuit != "closed":
            raise TierError(
                "the bus is left alone: its server does not answer",
                tier=carrier.kind,
                operation="publish",
                skipped=True,
            )
        await caller.publish(bus, [event])

    async def tell(self, keys: Sequence[str], caller: Caller, *, complete: bool = True) -> None:
        """Empty these keys in the L1 of the others, after `set` or a forced refresh."""
        self._leases.invalidated(keys, (), everything=False)
        if self._bus is None:
            return
        change = Change(tuple(keys))
        try:
            await self._publish(self._bus, self._event(change, complete), caller)
        except TierError:
            self.remember(change)

    @property
    def pending(self) -> bool:
        """Whether something could not be invalidated yet."""
        return bool(self._recovery)

    async def replay(self, caller: Caller) -> bool:
        """Repeat what is pending, whole; True when nothing is left over."""
        while self._recovery:
            with self._local.lock:
                number, keys, tags, everything = self._recovery.pending()
            if not await self._pass(Change(keys, tags, everything), caller):
                return False
            with self._local.lock:
                self._recovery.done(number)
        return True

    def apply(self, event: Event) -> None:
        """Do to this process what an event of another says."""
        if not event.complete:
            # Until this process has reached every tier itself: a complete invalidation of another
            # may have begun before the one that was not. Before anything is void: a load that
            # begins between the two would bring back what a tier still holds.
            self.remember(event)
        self._void(event)
        if event.keys or event.tags or event.everything:
            self._tally.invalidations["bus"] += 1

    def gap(self, reason: str) -> None:
        """Trust nothing that L1 holds: events may have been missed."""
        logger.info("L1 was emptied: %s", reason)
        self._local.void_all()
        self._tally.invalidations["gap"] += 1
