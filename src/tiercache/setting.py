"""`set`: a value that somebody brings along, put in the place of whatever is there.

It is a load like any other, as far as coherence goes: it leases its slots first and fills exactly
those leases; in L1 a flight that it registers as early stands for the lease. So an invalidation
that comes in between wins, and of two sets the later one. In a transaction all that comes before
the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tiercache._clock import Clock
from tiercache._flight import Flight
from tiercache.callers import Caller
from tiercache.entry import FOREVER, Entry
from tiercache.errors import TierError
from tiercache.invalidation import Change, Invalidation
from tiercache.lease import Leases
from tiercache.loading import Loading
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.tiers.base import Ask, Basis, Fill, Filled
from tiercache.tiers.guarded import GuardedTier


class Setting:
    """One call of `set` or `set_many`, from its leases to L1."""

    def __init__(
        self,
        entries: Mapping[str, Entry],
        sealed: Mapping[str, bytes],
        policy: CachePolicy,
        *,
        local: Local,
        tiers: Sequence[GuardedTier],
        loading: Loading,
        leases: Leases,
        invalidation: Invalidation,
        clock: Clock,
    ) -> None:
        self._entries = entries
        self._sealed = sealed
        self._policy = policy
        self._local = local
        self._tiers = tiers
        self._loading = loading
        self._leases = leases
        self._invalidation = invalidation
        self._clock = clock
        self._bases: dict[GuardedTier, list[Basis]] = {}
        self._claims: dict[str, Flight] = {}
        self._started = 0.0
        self.change = Change(tuple(entries))
        """What it makes outdated."""

    async def run(self, caller: Caller) -> None:
        """Set now."""
        await self.prepare(caller)
        await self._land(caller, committed=False)

    async def prepare(
        self, caller: Caller, *, barred: Callable[[GuardedTier], bool] | None = None
    ) -> None:
        """Lease the slots, in L1 and in those tiers that answer; of the ``barred`` none is asked.

        Those would wait for the transaction that this is a part of.
        """
        self._started = self._clock.monotonic()
        for key, entry in self._entries.items():
            self._claims[key] = self._local.begin(key, entry.tags)
        asks = [Ask(key, entry.tags) for key, entry in self._entries.items()]
        for tier in self._tiers:
            if barred is not None and barred(tier):
                continue
            try:
                self._bases[tier] = await caller.ask(tier, "lease", asks, self._leases.ttl(tier))
            except TierError:
                pass

    async def undo(self, caller: Caller) -> None:
        """Give the leases back."""
        self._give_up_claims()
        await self._loading.give_back(self._bases, caller)

    def _give_up_claims(self) -> None:
        for flight in self._claims.values():
            self._local.land(flight, None)
        self._claims.clear()

    async def commit(self, known: bool, caller: Caller) -> bool:
        """Set what was prepared before a commit; of one that may have failed only invalidate."""
        if not known:
            self._give_up_claims()
            return await self._invalidation.run(self.change, caller)
        return await self._land(caller, committed=True)

    async def _land(self, caller: Caller, *, committed: bool) -> bool:
        """Fill bottom up, L1 last; after a commit, invalidate what somebody else has leased since.

        He may have loaded what was there before the commit.
        """
        now = self._clock.time()
        refused: set[str] = set()
        awaited: set[str] = set()
        unreached = False
        try:
            for tier in reversed(self._tiers):
                bases = self._bases.get(tier)
                try:
                    if bases is None:  # no lease to fill: what is there has to go
                        await caller.ask(tier, "invalidate", self.change.keys, ())
                        continue
                    fills = [self._fill(basis, now) for basis in bases]
                    answers: list[Filled] = await caller.ask(tier, "fill", fills)
                except TierError:
                    unreached = True
                    continue
                for basis, answer in zip(bases, answers, strict=True):
                    if not answer:
                        refused.add(basis.key)
                    if answer in (Filled.AWAITED, Filled.IN_VAIN):
                        awaited.add(basis.key)
            if unreached:  # that tier may still hold the old value: go round it until it is gone
                self._invalidation.remember(self.change)
            for key in self._entries:
                self._fill_local(key, refused=key in refused)
        finally:
            self._give_up_claims()
        await self._leases.land(sorted(awaited), caller)
        complete = True
        if refused and committed:
            complete = await self._invalidation.run(Change(tuple(sorted(refused))), caller)
        await self._invalidation.tell(tuple(self._entries), caller, complete=not unreached)
        return complete and not unreached

    def _fill_local(self, key: str, *, refused: bool) -> None:
        """Put the value into L1, in place of what loads under way may bring, unless it is outdated.

        A forced flight makes void those that began before it.
        """
        entry = self._entries[key]
        slot = self._loading.slot(key, entry, self._policy, started=self._started)
        with self._local.lock:
            flight = self._local.begin(key, entry.tags, forced=True)
            current = self._claims[key].fills and not refused
            if not current or not self._local.fill(flight, slot):
                self._local.void((key,), ())
            self._local.land(flight, None)

    def _fill(self, basis: Basis, now: float) -> Fill:
        until = self._entries[basis.key].stale_until
        ttl = None if until == FOREVER else max(until - now, 0.001)
        return Fill(basis, self._sealed[basis.key], ttl)
