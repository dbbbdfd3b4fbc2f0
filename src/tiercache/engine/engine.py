"""What becomes of a request: it goes round the cache, is private, strict, a hit, or flies.

L1 is asked again, by the text key, then the request joins the flight of its key or starts one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tiercache._clock import Clock
from tiercache._flight import Flight, Load, Outcome
from tiercache.callers import Caller
from tiercache.engine.peeking import Peeking
from tiercache.engine.private import PrivateReading
from tiercache.entry import MISSING, Entry, Slot
from tiercache.errors import CacheClosed, CodecError, LoadCycle, PolicyError
from tiercache.invalidation import Invalidation
from tiercache.loading import Call, Glimpse, Item, Loader, Loading, Wanted, copier, late
from tiercache.local import Local
from tiercache.outbox import Outbox
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.telemetry.observer import Lookup, Observer, Reason
from tiercache.tiers.guarded import GuardedTier

if TYPE_CHECKING:
    from tiercache.strict import Strict

bypassed: ContextVar[frozenset[int]] = ContextVar("tiercache_bypassed", default=frozenset())
"""The engines (by id) that calls of this context go round."""


class Engine:
    """Answers the requests of one cache."""

    def __init__(
        self,
        *,
        local: Local,
        tiers: Sequence[GuardedTier],
        loading: Loading,
        invalidation: Invalidation,
        outbox: Outbox,
        clock: Clock,
        observer: Observer,
        strict: Strict | None = None,
    ) -> None:
        self.local = local
        self.tiers = tuple(tiers)
        self.invalidation = invalidation
        self.outbox = outbox
        self.clock = clock
        self.observer = observer
        self.strict = strict
        """Answers strict reads; None where no tier is shared."""
        self.counters = Counters()
        self.bypassed_everywhere = 0
        self.closed = False
        self._loading = loading
        self.glimpse = loading.glimpse
        self.direct = loading.direct
        self._peeking = Peeking(local, loading, clock, observer)
        self._private = PrivateReading(self.peek, observer)

    @property
    def names_slots(self) -> bool:
        """Whether the hot path of a function may find what it looks for in L1 by itself."""
        return self.local.tier is not None and not self.observer.sees_hits

    # -- reading ------------------------------------------------------------------------------

    def looks_closely(self, policy: CachePolicy) -> bool:
        """Whether reads under this policy have to go through `read`."""
        waits = policy.soft_timeout is not None or policy.hard_timeout is not None
        return waits or policy.strict or policy.copy != "none" or self.observer.sees_hits

    def is_disturbed(self) -> bool:
        """Whether a read has to look closer: it may be bypassed, private, or watched."""
        if self.bypassed_everywhere or bypassed.get() or self.observer.records:
            return True
        return self.outbox.transaction() is not None

    async def read(self, call: Call, caller: Caller, operation: str = "get_or_load") -> object:
        """Return the call's value: from a tier, from a load under way, or from its loader."""
        if self.is_bypassed():
            call.counters.bypassed += 1
            return await caller.call(call.loader)
        transaction = self.outbox.transaction()
        if transaction is not None:
            return await self._private.read(call, caller, operation)
        if call.policy.strict:
            return await self._strict(call.policy).read(self, call, caller, operation)
        slot = self.local.lookup(call.key, call.tags)
        if slot is not None and self._is_fresh(slot):
            if self.observer.sees_hits:
                return self._shown_hit(slot, call, caller, operation)
            return self._hit(slot, call, caller)
        lookup = Lookup(operation, key=call.key, function=call.function)
        with self.observer.reading(lookup):
            outcome = await self._fly(call, caller, lookup, slot)
            self.count(call.counters, outcome, lookup)
            return _copied(call.policy, outcome.value)

    async def read_many(
        self, calls: Sequence[Call], loader: Loader, caller: Caller, operation: str = "load_many"
    ) -> list[object]:
        """Return the calls' values, `MISSING` for what the loader does not know.

        The loader is called once, with those that no tier has and nobody is loading yet.
        """
        if self.is_bypassed():
            for call in calls:
                call.counters.bypassed += 1
            return list(await loader(calls))
        if self.outbox.transaction() is not None:
            return await self._private.read_many(calls, loader, caller)
        if calls and calls[0].policy.strict:
            strict = self._strict(calls[0].policy)
            return await strict.read_many(self, calls, loader, caller, operation)
        values: dict[int, object] = {}
        waiting: list[tuple[int, Flight]] = []
        led: list[Item] = []
        lookup = Lookup(operation, key_count=len(calls))
        hits: list[tuple[int, Slot]] = []
        with self.local.lock:  # who joins finds the load on its flight
            for index, call in enumerate(calls):
                old = self.local.lookup(call.key, call.tags)
                entered = self.local.enter(call.key, call.tags, self._is_fresh, caller.may_join)
                if isinstance(entered, Slot):
                    hits.append((index, entered))
                    continue
                flight, leads = entered
                waiting.append((index, flight))
                if leads:
                    flight.stale = None if old is None else self._entry(old)
                    led.append(Item(call, flight))
                else:
                    call.counters.coalesced += 1
            load = Load([item.flight for item in led])
        for index, slot in hits:
            values[index] = self._hit(slot, calls[index], caller)
        if not waiting:
            return [values[index] for index in range(len(calls))]
        with self.observer.reading(lookup):
            if led:
                self.launch(load, led, loader, caller, lookup, "miss")
            for index, flight in waiting:
                call = calls[index]
                outcome = await self.land(call, flight, caller, None)
                if outcome is None:  # abandoned by whoever loaded it: ask for this one alone
                    outcome = await self._fly(call, caller, lookup, None, loader)
                self.count(call.counters, outcome, lookup)
                values[index] = _copied(call.policy, outcome.value)
        return [values[index] for index in range(len(calls))]

    async def refresh(self, call: Call, caller: Caller) -> object:
        """Load anew whatever the tiers hold, and empty the key in the L1 of others."""
        if self.is_bypassed():
            return await caller.call(call.loader)
        if self.outbox.transaction() is not None:
            return await self._private.refresh(call, caller)
        if call.policy.strict:
            return await self._strict(call.policy).refresh(self, call, caller)
        flight = self.local.begin(call.key, call.tags, forced=True)
        load = Load([flight])
        lookup = Lookup("refresh", key=call.key, function=call.function)
        with self.observer.reading(lookup):
            item = Item(call, flight)
            self.launch(load, [item], _one(caller), caller, lookup, "forced")
            outcome = await self.land(call, flight, caller, None)
            if outcome is None:
                return await self.refresh(call, caller)
            lookup.result = "miss"
            await self.invalidation.tell([call.key], caller)
            return _copied(call.policy, outcome.value)

    async def peek(self, wanted: Wanted, caller: Caller) -> dict[str, object]:
        """Return what the tiers hold of the keys, without loading; what is found fills L1."""
        if self.is_bypassed():
            return {}
        transaction = self.outbox.transaction()
        scope = None if transaction is None else self.outbox.scope(transaction)
        wanted = wanted._replace(keys=list(dict.fromkeys(wanted.keys)), scope=scope)
        if wanted.policy.strict:
            return await self._strict(wanted.policy).peek(wanted, caller)
        return await self._peeking.peek(wanted, caller, fills=transaction is None)

    def _is_fresh(self, slot: Slot) -> bool:
        return self.clock.monotonic() < slot.expires

    def _hit(self, slot: Slot, call: Call, caller: Caller) -> object:
        call.counters.l1 += 1
        self.local.touch(slot)
        now = self.clock.monotonic()
        if now >= slot.serve_until:
            # Due for a refresh. Asked again only later, should this one fail.
            slot.serve_until = now + (slot.expires - now) / 2
            self._refresh_behind(call, caller)
        elif call.names(slot):
            with self.local.lock:
                if slot.serve_until > now:
                    call.name_slot(slot)
        return _copied(call.policy, slot.value)

    def _shown_hit(self, slot: Slot, call: Call, caller: Caller, operation: str) -> object:
        lookup = Lookup(operation, key=call.key, function=call.function)
        with self.observer.reading(lookup):
            lookup.result, lookup.tier = "hit", "l1"
            return self._hit(slot, call, caller)

    def _refresh_behind(self, call: Call, caller: Caller) -> None:
        with self.local.lock:
            entered = self.local.enter(call.key, call.tags, lambda slot: False, lambda load: True)
            assert not isinstance(entered, Slot)
            flight, leads = entered
            if not leads:
                return
            load = Load([flight], detached=True)
        lookup = Lookup("refresh", key=call.key, function=call.function)
        self.launch(load, [Item(call, flight)], _one(caller), caller, lookup, "refresh_ahead")

    async def _fly(
        self,
        call: Call,
        caller: Caller,
        lookup: Lookup,
        stale: Slot | None,
        loader: Loader | None = None,
    ) -> Outcome:
        while True:
            with self.local.lock:  # who joins finds the load on its flight
                entered = self.local.enter(call.key, call.tags, self._is_fresh, caller.may_join)
                if isinstance(entered, Slot):
                    return Outcome(entered.value, "l1")
                flight, leads = entered
                load = Load([flight]) if leads else None
            if load is not None:
                if stale is not None:
                    flight.stale = self._entry(stale)
                policy, glimpse = call.policy, None
                if self.tiers and policy.soft_timeout is None and policy.hard_timeout is None:
                    found = await self._loading.glimpse(call, flight, caller)
                    if isinstance(found, Outcome):
                        return found
                    glimpse = found
                reason: Reason = "miss" if stale is None else "expired"
                self._carry_on(call, flight, glimpse, loader, caller, lookup, reason)
            else:
                lookup.coalesced = True
                call.counters.coalesced += 1
            outcome = await self.land(call, flight, caller, stale)
            if outcome is not None:
                return outcome

    async def follow(
        self, call: Call, flight: Flight, glimpse: Glimpse | None, caller: Caller
    ) -> object:
        """Load for a call that nothing disturbs, whose `glimpse` did not find it."""
        lookup = Lookup("get_or_load", key=call.key, function=call.function)
        with self.observer.reading(lookup):
            self._carry_on(call, flight, glimpse, None, caller, lookup, "miss")
            outcome = await self.land(call, flight, caller, None)
            if outcome is None:  # abandoned
                outcome = await self._fly(call, caller, lookup, None)
            self.count(call.counters, outcome, lookup)
            return outcome.value

    def _carry_on(
        self,
        call: Call,
        flight: Flight,
        glimpse: Glimpse | None,
        loader: Loader | None,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        """Start the load of a flight that has not landed with its first look."""
        if not flight.finished:
            assert flight.load is not None
            item = Item(call, flight, glimpse)
            self.launch(flight.load, [item], loader, caller, lookup, reason)

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
        policy = items[0].call.policy
        behind = (
            reason == "refresh_ahead"
            or policy.soft_timeout is not None
            or policy.hard_timeout is not None
        )
        run = (loading or self._loading).run
        work = run(load, items, loader or _one(caller), caller, lookup, reason)
        if reason == "refresh_ahead":
            work = self._rooted(work, lookup, reason)
        caller.launch(load, work, behind=behind)

    async def _rooted(self, work: Any, lookup: Lookup, reason: Reason) -> None:
        with self.observer.refreshing(lookup, reason):
            await work

    async def land(
        self,
        call: Call,
        flight: Flight,
        caller: Caller,
        stale: Slot | None,
        *,
        joined: bool = False,
    ) -> Outcome | None:
        """Wait for a flight as long as the policy allows; None when it was abandoned.

        Who has ``joined`` the load of a strict key has no use for what that found before.
        """
        policy = call.policy
        soft, hard = policy.soft_timeout, policy.hard_timeout
        if soft is not None and not await caller.wait(flight, soft):
            old = self._stale(flight, stale, joined)
            if old is not MISSING:
                assert flight.load is not None
                flight.load.detached = True
                return Outcome(old, stale=True)
        left = None if hard is None else max(hard - (soft or 0.0), 0.0)
        if not await caller.wait(flight, left):
            assert hard is not None
            old = self._stale(flight, stale, joined)
            if old is MISSING:
                self.local.flights.drop_unwanted(flight)
                raise late(call, hard)
            return Outcome(old, stale=True)
        error = flight.error
        if error is not None and not isinstance(error, (CodecError, LoadCycle)):
            old = self._stale(flight, stale, joined)
            if old is not MISSING:
                return Outcome(old, stale=True)
        return self.outcome(flight)

    def outcome(self, flight: Flight) -> Outcome | None:
        """Return what a flight that is over has brought, raise what it failed with.

        None when it was abandoned, and somebody else has to try.
        """
        outcome = flight.result()
        if outcome is not None:
            return outcome
        assert flight.load is not None
        if self.closed:
            raise CacheClosed(f"the cache was closed while {flight.key!r} was being loaded")
        if flight.load.cancelled_itself:
            raise asyncio.CancelledError  # as the loader did: to try again would be to go round
        return None

    def _stale(self, flight: Flight, slot: Slot | None, joined: bool) -> object:
        """Return the old value that may stand in, or `MISSING`."""
        if slot is not None and not slot.void and self.clock.monotonic() < slot.stale_until:
            return slot.value
        entry = None if joined else flight.stale
        if entry is not None and flight.fills and self.clock.time() < entry.stale_until:
            return entry.value
        return MISSING

    def _entry(self, slot: Slot) -> Entry:
        shift = self.clock.time() - self.clock.monotonic()
        return Entry(
            slot.value,
            slot.created + shift,
            slot.expires + shift,
            slot.stale_until + shift,
            slot.tags,
        )

    # -- strict keys --------------------------------------------------------------------------

    def grant(self, policy: CachePolicy) -> CachePolicy:
        """Return the policy if this cache can keep what it promises, else `PolicyError`."""
        if policy.strict:
            self._strict(policy).expect()
        return policy

    def _strict(self, policy: CachePolicy) -> Strict:
        if self.strict is None:
            raise PolicyError(
                f"strict={policy.strict} is refused: a cache in memory alone cannot know what "
                "others commit; add a RedisTier, where transactions mark what they are about to "
                "change, or a DatabaseTier"
            )
        return self.strict

    # -- small things -------------------------------------------------------------------------

    def is_bypassed(self) -> bool:
        """Whether the calling context goes round this cache."""
        return bool(self.bypassed_everywhere) or id(self) in bypassed.get()

    def count(self, counters: Counters, outcome: Outcome, lookup: Lookup) -> None:
        """Count what a request came to."""
        lookup.tier = outcome.level
        if outcome.stale:
            counters.stale += 1
            lookup.result = "stale"
        elif outcome.level is None:
            counters.misses += 1
            lookup.result = "miss"
        else:
            counters.hit(outcome.level)
            lookup.result = "hit"


def _one(caller: Caller) -> Loader:
    async def load(calls: Sequence[Call]) -> list[object]:
        return [await caller.call(calls[0].loader)]

    return load


def _copied(policy: CachePolicy, value: object) -> object:
    copy = copier(policy.copy)
    return value if copy is None else copy(value)
