"""The one slow path: what happens after L1 has missed, for a miss, a refresh and a batch alike.

::

    look    L2, then L3: a readable value ends the search; a miss leaves a lease behind
    load    the user's function, for what no tier had
    fill    L3, then L2, then L1: bottom first, and only where the lease is still there
    land    everybody who waits is told

A value that is found but past its time is remembered: it is served when the loader fails or is
slow (`stale_for`), and its own token is the basis that the new value replaces.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from tiercache._clock import Clock
from tiercache._flight import Flight, Load, Outcome, current_load
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, MISSING, Entry, Slot
from tiercache.errors import CodecError, LoadTimeout, TierError
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.stats import Counters
from tiercache.telemetry.observer import Lookup, Observer, Reason
from tiercache.tiers.base import Ask, Basis, Fill, Stored
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")

LEASE_TTL = 300.0
"""Seconds after which a lease that nobody filled or released is dropped by the server."""


class Call:
    """One request for one key, as a decorated function or a method of the cache makes it."""

    __slots__ = (
        "alias",
        "counters",
        "function",
        "key",
        "loader",
        "policy",
        "table",
        "tags",
        "type",
    )

    def __init__(
        self,
        key: str,
        tags: tuple[str, ...],
        policy: CachePolicy,
        counters: Counters,
        *,
        loader: Callable[[], Any],
        type_: Callable[[], Any],
        function: str | None = None,
        table: dict[object, Slot] | None = None,
        alias: object | None = None,
    ) -> None:
        self.key = key
        self.tags = tags
        self.policy = policy
        self.counters = counters
        self.loader = loader
        self.type = type_
        self.function = function
        self.table = table
        self.alias = alias

    def name_slot(self, slot: Slot) -> None:
        """Let the function's hot path find the slot; called under the cache's lock."""
        if self.table is not None and self.alias is not None and slot.alias is None:
            slot.alias = (self.table, self.alias)
            self.table[self.alias] = slot


class Item:
    """One call on the slow path, and what is known about it so far."""

    __slots__ = ("bases", "call", "entry", "flight", "leases", "level", "payload", "started")

    def __init__(self, call: Call, flight: Flight) -> None:
        self.call = call
        self.flight = flight
        self.bases: dict[GuardedTier, Basis] = {}
        self.leases: list[tuple[GuardedTier, Basis]] = []
        self.entry: Entry | None = None
        self.level: str | None = None
        self.payload: bytes | None = None
        self.started = flight.began


Loader = Callable[[Sequence[Call]], Awaitable[Sequence[object]]]
"""Loads the values of some calls, in their order; `MISSING` for one that has none."""


class Loading:
    """The slow path of one cache."""

    def __init__(
        self,
        local: Local,
        tiers: Sequence[GuardedTier],
        sealer: Sealer,
        recovery: Recovery,
        clock: Clock,
        observer: Observer,
        bus_timeout: float,
    ) -> None:
        self._local = local
        self._tiers = tuple(tiers)
        self._sealer = sealer
        self._recovery = recovery
        self._clock = clock
        self._observer = observer
        self._bus_timeout = bus_timeout

    async def run(
        self,
        load: Load,
        items: Sequence[Item],
        loader: Loader,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        """Carry the items in and land their flights, whatever happens."""
        token = current_load.set(load)
        try:
            await self._carry(load, items, loader, caller, lookup, reason)
        except Exception as error:  # noqa: BLE001 - raised by everybody who waits
            for item in items:
                self._local.land(item.flight, None, error)
        except BaseException:
            # Cut off from outside (cancelled, interrupted): who waits on another loop or thread
            # starts again.
            for item in items:
                self._local.land(item.flight, None)
            raise
        finally:
            current_load.reset(token)

    async def _carry(
        self,
        load: Load,
        items: Sequence[Item],
        loader: Loader,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        try:
            wanted = list(items)
            for tier in self._tiers:
                if wanted:
                    wanted = await self._look(tier, wanted, caller, reason)
            if wanted:
                await self._load(load, wanted, loader, lookup, reason)
            await self._fill(items, caller)
        except (Exception, asyncio.CancelledError):
            await self._release(items, caller)
            raise
        for item in items:
            entry = item.entry
            if entry is None:
                self._local.land(item.flight, Outcome(MISSING))
            else:
                self._local.land(item.flight, Outcome(entry.value, item.level))

    async def _look(
        self,
        tier: GuardedTier,
        items: list[Item],
        caller: Caller,
        reason: Reason,
    ) -> list[Item]:
        """Read one tier for all items; return those it did not answer, each with a lease in it."""
        passed = [i for i in items if self._recovery.covers(i.call.key, i.call.tags)]
        asked = [i for i in items if i not in passed] if passed else items
        if not asked:
            return items
        try:
            answers: list[Stored | None] = await caller.ask(
                tier, "read", [Ask(i.call.key, i.call.tags) for i in asked]
            )
        except TierError:
            return items
        without: list[Item] = []
        missing: list[Item] = []
        for item, stored in zip(asked, answers, strict=True):
            entry = (
                None
                if stored is None
                else self._unseal(tier, item.call.key, stored, item.call.type)
            )
            if stored is None or entry is None:
                without.append(item)
                missing.append(item)
            elif not self._serves(entry, item, reason):
                item.bases[tier] = stored.basis
                missing.append(item)
            else:
                item.entry, item.level, item.payload = entry, tier.level, stored.payload
        if without:
            try:
                bases: list[Basis] = await caller.ask(
                    tier, "lease", [Ask(i.call.key, i.call.tags) for i in without], LEASE_TTL
                )
            except TierError:
                pass
            else:
                for item, basis in zip(without, bases, strict=True):
                    item.bases[tier] = basis
                    item.leases.append((tier, basis))
        return [*passed, *missing]

    def _unseal(
        self,
        tier: GuardedTier,
        key: str,
        stored: Stored,
        type_: Callable[[], Any],
        broken: list[str] | None = None,
    ) -> Entry | None:
        """Open a payload; one that cannot be read is a miss, counted, and replaced by the lease.

        Where there will be no lease, its key is put into ``broken``, unless it is only of another
        type than the one that was asked for.
        """
        try:
            entry = self._sealer.open(key, stored.payload, type_())
        except CodecError as error:
            tier.counters.unreadable += 1
            logger.info("a payload in %s was refused: %s", tier.level, error)
            if broken is not None and error.reason != "type":
                broken.append(key)
            return None
        if entry.stale_until <= self._clock.time():
            return None
        return replace(entry, tags=tuple(tag for tag, _ in stored.basis.tags))

    async def glance(
        self, asks: Sequence[Ask], type_: Callable[[], Any], caller: Caller
    ) -> dict[str, tuple[Entry, str]]:
        """Read fresh entries from the shared tiers without loading, leasing or filling them."""
        found: dict[str, tuple[Entry, str]] = {}
        for tier in self._tiers:
            wanted = [
                ask
                for ask in asks
                if ask.key not in found and not self._recovery.covers(ask.key, ask.tags)
            ]
            if not wanted:
                break
            try:
                answers: list[Stored | None] = await caller.ask(tier, "read", wanted)
            except TierError:
                continue
            now = self._clock.time()
            broken: list[str] = []
            for ask, stored in zip(wanted, answers, strict=True):
                if stored is not None:
                    entry = self._unseal(tier, ask.key, stored, type_, broken)
                    if entry is not None and entry.expires > now:
                        found[ask.key] = (entry, tier.level)
            if broken:
                try:
                    await caller.ask(tier, "invalidate", broken, ())
                except TierError:
                    pass  # whoever reads it next tries again
        return found

    def _serves(self, entry: Entry, item: Item, reason: Reason) -> bool:
        now = self._clock.time()
        if entry.expires <= now:
            stale = item.flight.stale
            if stale is None or stale.created < entry.created:
                item.flight.stale = entry
            return False
        if reason == "forced":
            return False
        if reason == "refresh_ahead":
            return now < item.call.policy.refresh_at(entry.created, entry.expires)
        return True

    async def _load(
        self,
        load: Load,
        items: list[Item],
        loader: Loader,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        if reason == "miss" and any(item.flight.stale is not None for item in items):
            reason = "expired"
        policy = items[0].call.policy
        counters = items[0].call.counters
        created = self._clock.time()
        began = self._clock.monotonic()
        counters.loads += 1
        try:
            with self._observer.loading(lookup, reason):
                values = await _bounded(load, loader, [item.call for item in items], policy)
        except Exception:
            counters.load_errors += 1
            raise
        for item, value in zip(items, values, strict=True):
            call = item.call
            if value is MISSING:
                continue
            times = call.policy.times(created, random.random())  # noqa: S311 - jitter, not secrecy
            item.started = began
            item.entry = Entry(value, times.created, times.expires, times.stale_until, call.tags)

    async def _fill(self, items: Sequence[Item], caller: Caller) -> None:
        keep = [item for item in items if item.entry is not None and self._kept(item)]
        for tier in reversed(self._tiers):
            fills: list[Fill] = []
            for item in keep:
                basis = item.bases.get(tier)
                if basis is not None and item.level != tier.level:
                    fills.append(Fill(basis, self._sealed(item), self._time_left(item)))
            if fills:
                try:
                    await caller.ask(tier, "fill", fills)
                except TierError:
                    pass
        for item in keep:
            self.fill_local(item)
        await self._release([item for item in items if item not in keep], caller)

    def _kept(self, item: Item) -> bool:
        predicate = item.call.policy.cache_if
        if item.level is not None or predicate is None:
            return True
        assert item.entry is not None
        return bool(predicate(item.entry.value))

    def _sealed(self, item: Item) -> bytes:
        if item.payload is None:
            assert item.entry is not None
            item.payload = self._sealer.seal(item.call.key, item.entry, item.call.type())
        return item.payload

    def _time_left(self, item: Item) -> float | None:
        assert item.entry is not None
        if item.entry.stale_until == FOREVER:
            return None
        return max(item.entry.stale_until - self._clock.time(), 0.001)

    def fill_local(self, item: Item) -> None:
        """Put an item's entry into L1, if its flight has not been voided."""
        entry, call = item.entry, item.call
        assert entry is not None
        started = item.started if item.level is None else None
        slot = self.slot(call.key, entry, call.policy, started=started)
        with self._local.lock:
            if self._local.fill(item.flight, slot):
                call.name_slot(slot)

    def slot(self, key: str, entry: Entry, policy: CachePolicy, *, started: float | None) -> Slot:
        """Return the entry as L1 holds it: on the monotonic clock, with the time that is left.

        ``started`` is when this process' own loader call began: for ``bus_timeout`` after that the
        entry needs no bus to vouch for it.
        """
        shift = self._clock.monotonic() - self._clock.time()
        keep = copier(policy.copy)
        return Slot(
            key,
            entry.value if keep is None else keep(entry.value),
            created=entry.created + shift,
            refresh_at=policy.refresh_at(entry.created, entry.expires) + shift,
            expires=entry.expires + shift,
            stale_until=entry.stale_until + shift,
            tags=entry.tags,
            trusted_until=-FOREVER if started is None else started + self._bus_timeout,
        )

    async def _release(self, items: Sequence[Item], caller: Caller) -> None:
        """Give back the leases of a load that came to nothing."""
        by_tier: dict[GuardedTier, list[Basis]] = {}
        for item in items:
            for tier, basis in item.leases:
                by_tier.setdefault(tier, []).append(basis)
        for tier, bases in by_tier.items():
            try:
                await caller.ask(tier, "release", bases)
            except TierError:
                pass  # the lease runs out by itself


def late(call: Call, limit: float) -> LoadTimeout:
    """Return the error of a load that took too long."""
    return LoadTimeout(
        f"loading {call.key!r} took longer than hard_timeout={limit} s, and there is nothing stale "
        "to serve; raise hard_timeout=, or give stale_for= so that an old value can stand in",
        key=call.key,
        timeout=limit,
    )


async def _bounded(
    load: Load, loader: Loader, calls: list[Call], policy: CachePolicy
) -> Sequence[object]:
    limit = policy.hard_timeout
    if limit is None or load.loop is None:  # who waits for a thread gives up by itself
        return await loader(calls)
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await loader(calls)
    except TimeoutError:
        if not scope.expired():
            raise  # the loader's own
        raise late(calls[0], limit) from None


def copier(how: str) -> Callable[[Any], Any] | None:
    """Return what makes the copy that L1 keeps and hands out; None for the object itself."""
    if how == "none":
        return None
    return copy.copy if how == "shallow" else copy.deepcopy
