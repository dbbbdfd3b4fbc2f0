"""Reads through the tiers and fills upwards; the only module that knows there are several.

A request comes here when the hot path of a decorated function had no answer, or from a method of
the cache. L1 is asked again (by its text key), then the request joins or starts a flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tiercache._clock import Clock
from tiercache._flight import Flight, Load, Outcome
from tiercache.callers import Caller
from tiercache.entry import MISSING, Entry, Slot
from tiercache.errors import CacheClosed, CodecError, LoadCycle, PolicyError
from tiercache.invalidation import Invalidation
from tiercache.loading import Call, Direct, Item, Loader, Loading, copier, late
from tiercache.local import Local
from tiercache.outbox import Outbox, Scope
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.telemetry.observer import Lookup, Observer, Reason
from tiercache.tiers.base import Ask
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

    @property
    def names_slots(self) -> bool:
        """Whether the hot path of a function may find what it looks for in L1 by itself."""
        return self.local.tier is not None and not self.observer.sees_hits

    # -- reading ------------------------------------------------------------------------------

    def direct(self, policy: CachePolicy, counters: Counters) -> Direct | None:
        """Return the short way of a function's misses, where there is one."""
        waits = policy.soft_timeout is not None or policy.hard_timeout is not None
        if (
            self.tiers
            or self.local.tier is None
            or waits
            or policy.strict
            or policy.copy != "none"
            or self.observer.sees_hits
        ):
            return None
        return self._loading.direct(policy, counters)

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
            return await self._read_private(call, caller, operation)
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
            return await self._read_private_many(calls, loader, caller)
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
            lookup = Lookup("refresh", key=call.key, function=call.function)
            return await self._load_privately(call.counters, lookup, caller, call.loader)
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

    async def peek(
        self,
        keys: Sequence[str],
        tags: tuple[str, ...] | None,
        type_: Callable[[], Any],
        policy: CachePolicy,
        caller: Caller,
        counters: Counters | None = None,
    ) -> dict[str, object]:
        """Return what the tiers hold of the keys, without loading; what is found fills L1."""
        if self.is_bypassed():
            return {}
        transaction = self.outbox.transaction()
        scope = None if transaction is None else self.outbox.scope(transaction)
        found: dict[str, object] = {}
        wanted: list[str] = []
        asked = dict.fromkeys(keys)
        if policy.strict:
            return await self._strict(policy).peek(
                list(asked), tags, type_, caller, counters, scope
            )
        for key in asked:
            if scope is not None and scope.hides(key, tags):
                continue
            slot = self.local.lookup(key, tags)
            if slot is not None and self._is_fresh(slot):
                if scope is not None and scope.hides(key, slot.tags):
                    continue
                self.local.touch(slot)
                found[key] = _copied(policy, slot.value)
                if counters is not None:
                    counters.l1 += 1
            else:
                wanted.append(key)
        if wanted and self.tiers:
            found.update(await self._glance(wanted, tags, type_, policy, caller, counters, scope))
        if counters is not None:
            counters.misses += sum(key not in found for key in asked)
        return found

    async def _glance(
        self,
        keys: Sequence[str],
        tags: tuple[str, ...] | None,
        type_: Callable[[], Any],
        policy: CachePolicy,
        caller: Caller,
        counters: Counters | None,
        scope: Scope | None,
    ) -> dict[str, object]:
        found: dict[str, object] = {}
        flights = {key: self.local.begin(key, tags) for key in keys}
        lookup = Lookup("get", key=keys[0], key_count=len(keys) if len(keys) > 1 else None)
        try:
            with self.observer.reading(lookup):
                entries = await self._loading.glance(
                    [Ask(key, tags) for key in keys], type_, caller
                )
                for key, (entry, level) in entries.items():
                    if scope is not None and scope.hides(key, entry.tags):
                        continue
                    if scope is None and not self.outbox.transaction():
                        slot = self._loading.slot(key, entry, policy, started=None)
                        self.local.fill(flights[key], slot)
                    found[key] = _copied(policy, entry.value)
                    lookup.result, lookup.tier = "hit", level
                    if counters is not None:
                        counters.hit(level)
                if not found:
                    lookup.result = "miss"
        finally:
            for flight in flights.values():
                self.local.land(flight, None)
        return found

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
        elif (
            call.table is not None and slot.table is not call.table and not self.observer.sees_hits
        ):
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
                item = Item(call, flight)
                policy = call.policy
                if self.tiers and policy.soft_timeout is None and policy.hard_timeout is None:
                    outcome = await self._loading.glimpse(load, item, caller)
                    if outcome is not None:
                        return outcome
                if not flight.finished:
                    reason: Reason = "miss" if stale is None else "expired"
                    self.launch(load, [item], loader, caller, lookup, reason)
            else:
                lookup.coalesced = True
                call.counters.coalesced += 1
            outcome = await self.land(call, flight, caller, stale)
            if outcome is not None:
                return outcome

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

    # -- inside a transaction -----------------------------------------------------------------

    async def _read_private(self, call: Call, caller: Caller, operation: str) -> object:
        """Read inside the calling task's open transaction.

        What the transaction sees is its own (its snapshot may be old, its writes are not
        committed): a load runs in this task, is joined by nobody and fills nothing. Hits of what it
        has not invalidated are served.
        """
        tags = call.tags
        found = await self.peek([call.key], tags, call.type, call.policy, caller, call.counters)
        if call.key in found:
            return found[call.key]
        lookup = Lookup(operation, key=call.key, function=call.function)
        lookup.result = "miss"
        with self.observer.reading(lookup):
            return await self._load_privately(call.counters, lookup, caller, call.loader)

    async def _read_private_many(
        self, calls: Sequence[Call], loader: Loader, caller: Caller
    ) -> list[object]:
        values: list[object] = []
        for call in calls:
            found = await self.peek(
                [call.key], call.tags, call.type, call.policy, caller, call.counters
            )
            values.append(found.get(call.key, MISSING))
        missing = [call for call, value in zip(calls, values, strict=True) if value is MISSING]
        if missing:
            lookup = Lookup("load_many", key_count=len(calls))
            lookup.result = "miss"
            with self.observer.reading(lookup):
                loaded = iter(
                    await self._load_privately(missing[0].counters, lookup, caller, loader, missing)
                )
            values = [next(loaded) if value is MISSING else value for value in values]
        return values

    async def _load_privately(
        self,
        counters: Counters,
        lookup: Lookup,
        caller: Caller,
        loader: Callable[..., Any],
        *arguments: Any,
    ) -> Any:
        counters.loads += 1
        try:
            with self.observer.loading(lookup, "miss"):
                return await caller.call(loader, *arguments)
        except Exception:
            counters.load_errors += 1
            raise

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
