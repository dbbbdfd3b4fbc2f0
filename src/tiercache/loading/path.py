"""`Loading`: looks, loads, fills, lands and waits."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiercache._clock import Clock
from tiercache._flight import Flight, Load, Outcome, current_load
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, MISSING, Entry, Slot
from tiercache.errors import LoadTimeout, TierError
from tiercache.lease import Leases, Patience, Wait
from tiercache.loading.direct import Direct
from tiercache.loading.item import UNANSWERED, Call, Glimpse, Item, Loader
from tiercache.loading.looking import Looking
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.telemetry.observer import Lookup, Observer, Reason
from tiercache.tiers.base import Ask, Basis, Fill, Filled
from tiercache.tiers.guarded import GuardedTier


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
        leases: Leases,
    ) -> None:
        self._local = local
        self.tiers = tuple(tiers)
        self._sealer = sealer
        self.looking = Looking(tiers, sealer, recovery, clock, leases)
        self.glance = self.looking.glance
        self._clock = clock
        self._observer = observer
        self._bus_timeout = bus_timeout
        self._leases = leases

    async def glimpse(self, call: Call, flight: Flight, caller: Caller) -> Outcome | Glimpse | None:
        """Look into the first tier without a task of the load's own; land what is fresh there.

        Otherwise the load has to run, with what was seen, unless the flight has landed meanwhile. A
        caller that is cancelled here abandons it, and those who have joined start again.
        """
        if not self.tiers or self.looking.passes(call):
            return None
        load = flight.load
        assert load is not None
        caller.lead(load)
        load.looking = True
        try:
            [stored] = await caller.ask(self.tiers[0], "read", (Ask(call.key, call.tags),))
            glimpse = self.looking.glimpse(call, stored)
        except TierError:
            glimpse = UNANSWERED
        except Exception as error:  # noqa: BLE001 - raised by everybody who waits
            self._local.land(flight, None, error)
            return None
        except BaseException:
            load.cancelled = True
            self._local.land(flight, None)
            raise
        finally:
            load.looking = False
        entry = glimpse.entry
        if entry is None or entry.expires <= self._clock.time():
            if load.cancelled:
                self._local.land(flight, None)
            return glimpse
        outcome = Outcome(entry.value, self.tiers[0].level)
        if self._local.tier is None:
            self._local.land(flight, outcome)
        else:
            slot = self.slot(call.key, entry, call.policy, started=None)
            slot.marks = flight.marks
            self._local.bring(flight, slot, outcome, call.name_slot)
        return outcome

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
        nested = current_load.get() is not None
        token = current_load.set(load)
        patience = Patience(items[0].call.policy.hard_timeout, nested=nested)
        try:
            await self._carry(load, items, loader, caller, lookup, reason, patience)
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
        patience: Patience,
    ) -> None:
        wanted = list(items)
        patient = self._leases.patient and reason != "forced"
        try:
            if not patient:
                await self._round(load, wanted, loader, caller, lookup, reason)
                return None
            for item in items:
                item.patient = True
            while wanted:
                keys = [key for item in wanted for key in (item.call.key, item.claim.key)]
                tags = [tag for item in wanted for tag in item.call.tags]
                # Before the leases are asked for: what lands from now on is heard.
                with self._leases.waiting(keys, tags) as wait:
                    wanted = await self._round(load, wanted, loader, caller, lookup, reason)
                    if wanted and reason == "refresh_ahead":
                        return self._leave(load, wanted)
                    await self._wait(wait, wanted, caller, lookup, patience)
        except asyncio.CancelledError:
            await self._release(items, caller)
            raise
        except Exception:
            await self._release(items, caller, failed=True)
            raise
        finally:
            self._let_go(items)

    def _leave(self, load: Load, items: Sequence[Item]) -> None:
        """End a refresh that is under way elsewhere; who has joined it begins a load of its own."""
        load.cancelled = True
        for item in items:
            self._local.land(item.flight, None)

    async def _round(
        self,
        load: Load,
        items: Sequence[Item],
        loader: Loader,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> list[Item]:
        """Look, load what nobody else loads, fill and land it; return what others load."""
        wanted = await self.looking.look(items, caller, load, reason)
        if wanted:
            await self._load(load, wanted, loader, lookup, reason)
        here = [item for item in items if item.leased is None]
        await self._fill(here, caller)
        self._let_go(here)
        awaited = [item.call.key for item in here if item.awaited]
        if awaited:
            await caller.shielded(lambda: self._leases.land(awaited, caller))
        for item in here:
            entry = item.entry
            if entry is None:
                self._local.land(item.flight, Outcome(MISSING))
            else:
                self._local.land(item.flight, Outcome(entry.value, item.level))
        return [item for item in items if item.leased is not None]

    async def _wait(
        self, wait: Wait, items: Sequence[Item], caller: Caller, lookup: Lookup, patience: Patience
    ) -> None:
        """Wait until one of the loads elsewhere has landed, or may be taken over."""
        leases = [item.leased.remaining for item in items if item.leased is not None]
        if leases and all(leases):
            lookup.coalesced = True
            for item in items:
                if not item.coalesced:
                    item.coalesced = True
                    item.call.counters.coalesced_elsewhere += 1
            await wait.over(patience.for_lease(min(leases)), caller)
        for item in items:
            if patience.over or not wait.failed.isdisjoint((item.call.key, item.claim.key)):
                item.patient = False

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
        for tier in reversed(self.tiers):
            await self._fill_tier(tier, keep, caller)
        for item in keep:
            self.fill_local(item)
        await self._release([item for item in items if item not in keep], caller, failed=True)

    async def _fill_tier(self, tier: GuardedTier, items: Sequence[Item], caller: Caller) -> None:
        filled: list[Item] = []
        fills: list[Fill] = []
        for item in items:
            basis = item.bases.get(tier)
            if basis is not None and item.level != tier.level:
                filled.append(item)
                fills.append(Fill(basis, self._sealed(item), self._time_left(item)))
        if not fills:
            return
        try:
            answers: list[Filled] = await caller.ask(tier, "fill", fills)
        except TierError:
            return
        if tier.origin is not self._leases.tier:
            return
        refused: list[Item] = []
        for item, answer in zip(filled, answers, strict=True):
            item.awaited = answer in (Filled.AWAITED, Filled.IN_VAIN)
            if answer is Filled.REFUSED or item.claimed:
                refused.append(item)  # its lease may still be there, where its tags are not
        await self._release(refused, caller)

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

    @property
    def direct(self) -> Direct | None:
        """The short way of a miss, where memory is the only tier."""
        if self.tiers or self._local.tier is None:
            return None
        return Direct(self._local, self._bus_timeout)

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

    def _let_go(self, items: Sequence[Item]) -> None:
        """Forget the leases of loads that have ended."""
        for item in items:
            for _, basis in item.leases:
                self._leases.drop(basis)
            item.leases.clear()

    async def _release(
        self, items: Sequence[Item], caller: Caller, *, failed: bool = False
    ) -> None:
        """Give back the leases of loads that came to nothing."""
        by_tier: dict[GuardedTier, list[Basis]] = {}
        for item in items:
            for tier, basis in item.leases:
                by_tier.setdefault(tier, []).append(basis)
        await self.give_back(by_tier, caller, failed=failed)

    async def give_back(
        self,
        leases: Mapping[GuardedTier, Sequence[Basis]],
        caller: Caller,
        *,
        failed: bool = False,
    ) -> None:
        """Release leases, and tell those who wait for them; ``failed``: not to try one by one."""
        for tier, bases in leases.items():
            try:
                awaited: list[bool] = await caller.ask(tier, "release", bases)
            except TierError:
                continue  # they run out by themselves
            if tier.origin is self._leases.tier:
                keys = [basis.key for basis, waits in zip(bases, awaited, strict=True) if waits]
                if failed:
                    await self._leases.land((), caller, failed=keys)
                else:
                    await self._leases.land(keys, caller)


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
