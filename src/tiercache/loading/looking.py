"""Looking into the shared tiers: for what is readable, for leases, for those of others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from tiercache._clock import Clock
from tiercache._flight import Load
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.codec import Sealer
from tiercache.entry import Entry
from tiercache.errors import CodecError, TierError
from tiercache.lease import Leases, is_blocked_by
from tiercache.loading.item import UNANSWERED, Call, Glimpse, Item
from tiercache.telemetry.observer import Reason
from tiercache.tiers.base import Ask, Basis, Leased, Stored
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")


_NOTHING: Final = Glimpse(None, None)


class Looking:
    """Finds out about items, tier by tier."""

    def __init__(
        self,
        tiers: Sequence[GuardedTier],
        sealer: Sealer,
        recovery: Recovery,
        clock: Clock,
        leases: Leases,
    ) -> None:
        self._tiers = tuple(tiers)
        self._sealer = sealer
        self._recovery = recovery
        self._clock = clock
        self._leases = leases

    async def look(
        self, items: Sequence[Item], caller: Caller, load: Load, reason: Reason
    ) -> list[Item]:
        """Read the tiers for all items; return those to load, each with what its fill may replace.

        Those that others are loading are not among them (`Item.leased`).
        """
        wanted = list(items)
        for item in wanted:
            item.leased = None
        for tier in self._tiers:
            if wanted:
                wanted = await self._look(tier, wanted, caller, load, reason)
        return wanted

    def passes(self, call: Call) -> bool:
        """Whether the tiers hold what was invalidated there in vain, and are gone round."""
        return self._recovery.covers(call.key, call.tags)

    def glimpse(self, call: Call, stored: Stored | None) -> Glimpse:
        """Return what a first look into the first tier has found for one call."""
        if stored is None:
            return _NOTHING
        return Glimpse(stored, self.unseal(self._tiers[0], call.key, stored, call.type))

    async def _look(
        self, tier: GuardedTier, items: list[Item], caller: Caller, load: Load, reason: Reason
    ) -> list[Item]:
        passed = [i for i in items if self._recovery.covers(i.call.key, i.call.tags)]
        asked = [i for i in items if i not in passed] if passed else items
        if not asked:
            return items
        glimpses = await self._read(tier, asked, caller)
        if any(glimpse.failed for glimpse in glimpses):
            return items
        without: list[Item] = []
        due: list[Item] = []
        for item, (stored, entry, _) in zip(asked, glimpses, strict=True):
            if stored is None or entry is None:
                item.seen = b"" if stored is None else stored.basis.token
                without.append(item)
            elif not self._serves(entry, item, reason):
                item.bases[tier] = stored.basis
                due.append(item)
            else:
                item.entry, item.level, item.payload = entry, tier.level, stored.payload
        await self._lease(tier, without, caller, load)
        if due:
            await self._claim(tier, due, caller, load)
        return [item for item in (*passed, *without, *due) if item.leased is None]

    async def _read(
        self, tier: GuardedTier, items: Sequence[Item], caller: Caller
    ) -> list[Glimpse]:
        """Read the items, unless that has just been done."""
        glimpsed = items[0].glimpsed
        if glimpsed is not None and tier is self._tiers[0]:
            items[0].glimpsed = None  # for once: the next look is a new one
            return [glimpsed]
        try:
            answers: list[Stored | None] = await caller.ask(
                tier, "read", [item.ask for item in items]
            )
        except TierError:
            return [UNANSWERED] * len(items)
        return [
            Glimpse(
                stored,
                stored and self.unseal(tier, item.call.key, stored, item.call.type),
            )
            for item, stored in zip(items, answers, strict=True)
        ]

    def _yields(self, tier: GuardedTier, item: Item) -> bool:
        """Whether a lease of somebody else in this tier is left alone."""
        return item.patient and tier.origin is self._leases.tier and self._leases.patient

    async def _lease(
        self, tier: GuardedTier, items: Sequence[Item], caller: Caller, load: Load
    ) -> None:
        """Leave a lease for each item, or find out who has one."""
        for patient in (True, False):
            group = [item for item in items if self._yields(tier, item) is patient]
            if group:
                asks = [item.ask for item in group]
                for item, basis in await self._ask(tier, group, asks, caller, load, patient):
                    item.bases[tier] = basis

    async def _claim(
        self, tier: GuardedTier, items: Sequence[Item], caller: Caller, load: Load
    ) -> None:
        """Say that these are being loaded, though there is a value; find out who does already."""
        group = [item for item in items if self._yields(tier, item)]
        if group:
            await self._ask(tier, group, [item.claim for item in group], caller, load, True)

    async def _ask(
        self,
        tier: GuardedTier,
        items: Sequence[Item],
        asks: Sequence[Ask],
        caller: Caller,
        load: Load,
        patient: bool,
    ) -> list[tuple[Item, Basis]]:
        """Ask for leases; note those of others, return our own."""
        try:
            answers: list[Basis | Leased] = await caller.ask(
                tier, "lease", asks, self._leases.ttl(tier), patient
            )
        except TierError:
            return []
        own: list[tuple[Item, Basis]] = []
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Leased):
                holder = self._leases.holder(answer.token)
                if holder is not None and is_blocked_by(holder, load, caller):
                    answer, item.patient = answer._replace(remaining=0.0), False
                item.wait_for(answer)
            else:
                item.leases.append((tier, answer))
                self._leases.hold(tier, answer, item.flight)
                own.append((item, answer))
        return own

    def unseal(
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
        tags = stored.basis.tags
        if not tags:
            return entry
        value, created, expires, stale_until, _ = entry
        return Entry(value, created, expires, stale_until, tuple([tag for tag, _ in tags]))

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
                    entry = self.unseal(tier, ask.key, stored, type_, broken)
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
