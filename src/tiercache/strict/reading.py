"""How strict keys are read: nothing that is returned is older than an acknowledged commit.

::

    look    L2 with its marks, in one round trip: what is readable and not marked is returned
    round   marked, or the marks are not ready, or L2 does not answer: the loader, for this caller
    load    leased, loaded, filled; a fill that is accepted proves the value, for those who joined

L1 and the tiers below are not asked. Who finds a load of its key under way looks by itself first;
it is served by that load only if it had joined before the fill was sent and that was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from tiercache._clock import Clock
from tiercache._flight import Flight, Load, Outcome
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.entry import Entry, Slot
from tiercache.errors import TierError
from tiercache.loading import Call, Item, Loader, Loading, Wanted
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.strict.loading import StrictLoading
from tiercache.telemetry.observer import Lookup, Observer, Reason
from tiercache.tiers.base import Ask
from tiercache.tiers.strict.sight import Sight

JOINS: Final = 3
"""How often a caller waits for the loads of others before it loads alone."""


_MANY = 1000


class Pilot(Protocol):
    """The engine: starts loads, and waits for flights as policies ask for it."""

    @property
    def observer(self) -> Observer:
        """Whom requests are reported to."""
        ...

    def count(self, counters: Counters, outcome: Outcome, lookup: Lookup) -> None:
        """Count what a request came to."""
        ...

    def launch(
        self,
        load: Load,
        items: list[Item],
        loader: Loader | None,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
        loading: Loading | None = None,
    ) -> None:
        """Start a load; without a loader it is that of the only call."""
        ...

    async def land(
        self,
        call: Call,
        flight: Flight,
        caller: Caller,
        stale: Slot | None,
        *,
        joined: bool = False,
    ) -> Outcome | None:
        """Wait for a flight; None when it was abandoned."""
        ...


class Standby(Protocol):
    """What has to be in place before anything is leased."""

    @property
    def ready(self) -> bool:
        """Whether it is, as far as is known."""
        ...

    async def prepare(self) -> None:
        """Put it in place, if that takes no longer than a moment."""
        ...


class Seen(NamedTuple):
    """What a look found: a fresh value, or one past its time, or that the tier is gone round."""

    entry: Entry | None = None
    stale: Entry | None = None
    round: bool = False


class StrictReading:
    """Answers strict reads of one cache."""

    def __init__(
        self,
        loading: StrictLoading,
        local: Local,
        recovery: Recovery,
        clock: Clock,
        standby: Standby,
    ) -> None:
        self.loading = loading
        self._local = local
        self._recovery = recovery
        self._clock = clock
        self._standby = standby
        self._refreshing: dict[str, Flight] = {}

    @property
    def level(self) -> str:
        """The level of the tier that is asked."""
        return self.loading.tier.level

    async def read(
        self,
        pilot: Pilot,
        call: Call,
        caller: Caller,
        lookup: Lookup,
        loader: Loader | None = None,
    ) -> Outcome:
        """Return the call's value."""
        await self.make_ready(caller)
        joins = 0
        while True:
            with self._local.lock:
                shared = self.loading.joinable(call, caller) if joins < JOINS else None
                led = None if shared is not None else self._lead(call, joins)
            if shared is None:
                assert led is not None
                outcome = await self._land(pilot, call, led, caller, lookup, loader)
                if outcome is not None:
                    return outcome
                continue
            seen = (await self._look([Ask(call.key, call.tags)], call.type, caller))[0]
            if seen.entry is not None:
                self._refresh_if_due(pilot, call, seen.entry, caller)
                return Outcome(seen.entry.value, self.level)
            if seen.round:
                joins = JOINS
                continue
            with self._local.lock:
                if not self.loading.is_open(shared):
                    continue
            joins += 1
            call.counters.coalesced += 1
            lookup.coalesced = True
            old = None if seen.stale is None else self._slot(call, seen.stale)
            outcome = await pilot.land(call, shared.flight, caller, old, joined=True)
            if outcome is not None and (shared.confirmed or outcome.stale):
                return outcome

    async def read_many(
        self,
        pilot: Pilot,
        calls: Sequence[Call],
        loader: Loader,
        caller: Caller,
        lookup: Lookup,
    ) -> list[Outcome]:
        """Return the values of the calls; one loader call for those nobody else loads."""
        await self.make_ready(caller)
        led: dict[int, Flight] = {}
        with self._local.lock:
            for index, call in enumerate(calls):
                if self.loading.joinable(call, caller) is None:
                    led[index] = self.loading.share(call).flight
            load = Load(list(led.values()))
        if led:
            items = [Item(calls[index], flight) for index, flight in led.items()]
            self._launch(pilot, load, items, loader, caller, lookup, "miss")
        outcomes: list[Outcome] = []
        for index, call in enumerate(calls):
            flight = led.get(index)
            outcome = None if flight is None else await pilot.land(call, flight, caller, None)
            if outcome is None:
                outcome = await self.read(pilot, call, caller, lookup, loader)
            outcomes.append(outcome)
        return outcomes

    async def refresh(self, pilot: Pilot, call: Call, caller: Caller, lookup: Lookup) -> Outcome:
        """Load anew whatever is there."""
        await self.make_ready(caller)
        while True:
            flight = self._local.begin(call.key, call.tags)
            outcome = await self._land(pilot, call, flight, caller, lookup, None, "forced")
            if outcome is not None:
                return outcome

    async def peek(self, wanted: Wanted, caller: Caller) -> dict[str, Entry]:
        """Return the fresh entries of the keys."""
        await self.make_ready(caller)
        asks = [Ask(key, wanted.tags) for key in wanted.keys]
        found = await self._look(asks, wanted.type, caller)
        return {
            ask.key: seen.entry
            for ask, seen in zip(asks, found, strict=True)
            if seen.entry is not None
        }

    def _lead(self, call: Call, joins: int) -> Flight:
        """Register a load; one of a caller that has had enough of others is its own."""
        if joins < JOINS:
            flight = self.loading.share(call).flight
        else:
            flight = self._local.begin(call.key, call.tags)
        Load([flight])
        return flight

    async def _land(
        self,
        pilot: Pilot,
        call: Call,
        flight: Flight,
        caller: Caller,
        lookup: Lookup,
        loader: Loader | None,
        reason: Reason = "miss",
    ) -> Outcome | None:
        load, item = flight.load or Load([flight]), Item(call, flight)
        self._launch(pilot, load, [item], loader, caller, lookup, reason)
        outcome = await pilot.land(call, flight, caller, None)
        if item.entry is not None and item.level is not None:
            self._refresh_if_due(pilot, call, item.entry, caller)
        return outcome

    def _refresh_if_due(self, pilot: Pilot, call: Call, entry: Entry, caller: Caller) -> None:
        """Start a load behind a hit that is due for one, unless there is one under way."""
        now = self._clock.time()
        if now < call.policy.refresh_at(entry.created, entry.expires) or now >= entry.expires:
            return
        with self._local.lock:
            under_way = self._refreshing.get(call.key)
            if under_way is not None and not under_way.finished:
                return
            flight = self._refreshing[call.key] = self._local.begin(call.key, call.tags)
            load = Load([flight], detached=True)
            if len(self._refreshing) > _MANY:
                self._refreshing = {k: f for k, f in self._refreshing.items() if not f.finished}
        lookup = Lookup("refresh", key=call.key, function=call.function)
        self._launch(pilot, load, [Item(call, flight)], None, caller, lookup, "refresh_ahead")

    def _launch(
        self,
        pilot: Pilot,
        load: Load,
        items: list[Item],
        loader: Loader | None,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        pilot.launch(load, items, loader, caller, lookup, reason, self.loading)

    async def make_ready(self, caller: Caller) -> None:
        """See that the tier may be leased from, if that takes no longer than a moment."""
        if not self._standby.ready:
            await caller.call(self._standby.prepare)

    async def _look(
        self, asks: Sequence[Ask], type_: Callable[[], Any], caller: Caller
    ) -> list[Seen]:
        """Look by oneself."""
        if any(self._recovery.covers(ask.key, ask.tags) for ask in asks):
            return [Seen(round=True)] * len(asks)
        tier = self.loading.tier
        try:
            sights: list[Sight] = await caller.ask(tier, "look", asks)
        except TierError:
            return [Seen(round=True)] * len(asks)
        return [self._seen(ask.key, sight, type_) for ask, sight in zip(asks, sights, strict=True)]

    def _seen(self, key: str, sight: Sight, type_: Callable[[], Any]) -> Seen:
        if sight.stored is None:
            return Seen(round=sight.round)
        entry = self.loading.unseal(key, sight.stored, type_)
        if entry is None:
            return Seen()
        if entry.expires > self._clock.time():
            return Seen(entry)
        return Seen(stale=entry)

    def _slot(self, call: Call, entry: Entry) -> Slot:
        policy: CachePolicy = call.policy
        return self.loading.slot(call.key, entry, policy, started=None)
