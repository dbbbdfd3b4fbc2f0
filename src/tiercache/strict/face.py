"""What the engine, the outbox and the writes of a cache see of its strict keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from tiercache._clock import Clock
from tiercache._portal import Portal
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.errors import TierError
from tiercache.invalidation import Change, Invalidation
from tiercache.loading import Call, Loader, Wanted, copier
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.strict.databases import Databases
from tiercache.strict.loading import StrictLoading
from tiercache.strict.marking import DatabaseMarking, Marking, RedisMarking
from tiercache.strict.reading import Pilot, Standby, StrictReading
from tiercache.strict.upkeep import Upkeep
from tiercache.telemetry.observer import Lookup
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.strict import GuardedMarks, GuardedStrict, StrictDatabase, StrictRedis

if TYPE_CHECKING:
    from poolkit import Transaction


class Strict:
    """The strict keys of one cache in one process."""

    def __init__(self, reading: StrictReading, marking: Marking, databases: Databases) -> None:
        self._reading = reading
        self._marking = marking
        self._databases = databases
        self.seal: Callable[[Transaction, Sequence[Change]], Awaitable[None]] = marking.seal
        """Called before a commit with what the transaction is about to invalidate."""

    @property
    def tier(self) -> GuardedTier:
        """The tier that strict values are in."""
        return self._reading.loading.tier

    @property
    def expected(self) -> bool:
        """Whether somebody reads strictly, as far as this process knows."""
        return self._marking.known

    def expect(self) -> None:
        """Take note that somebody in this process does."""
        self._marking.known = True

    async def among(self, tiers: Sequence[GuardedTier], caller: Caller) -> list[GuardedTier]:
        """Return the tiers with the strict one in its place, when that may be leased from."""
        await self._reading.make_ready(caller)
        level = self._reading.level
        return [self.tier if tier.level == level else tier for tier in tiers]

    def refuse_incomplete(self) -> None:
        """Raise `TierError` for an invalidation that did not reach all, if anybody is strict."""
        if self._marking.known:
            raise TierError(
                "not every tier was reached, so a strict reader may still be given what was to be "
                "invalidated; it is kept, and finished as soon as that tier answers again",
                tier=self.tier.kind,
                operation="invalidate",
            )

    async def read(self, pilot: Pilot, call: Call, caller: Caller, operation: str) -> object:
        """Return the value of a call."""
        lookup = Lookup(operation, key=call.key, function=call.function)
        with pilot.observer.reading(lookup):
            outcome = await self._reading.read(pilot, call, caller, lookup)
            pilot.count(call.counters, outcome, lookup)
        return _copied(call.policy, outcome.value)

    async def read_many(
        self,
        pilot: Pilot,
        calls: Sequence[Call],
        loader: Loader,
        caller: Caller,
        operation: str,
    ) -> list[object]:
        """Return the values of the calls."""
        lookup = Lookup(operation, key_count=len(calls))
        with pilot.observer.reading(lookup):
            outcomes = await self._reading.read_many(pilot, calls, loader, caller, lookup)
            for call, outcome in zip(calls, outcomes, strict=True):
                pilot.count(call.counters, outcome, lookup)
        return [
            _copied(call.policy, outcome.value)
            for call, outcome in zip(calls, outcomes, strict=True)
        ]

    async def refresh(self, pilot: Pilot, call: Call, caller: Caller) -> object:
        """Load a call's value anew. Nobody need be told: no strict key is in any L1."""
        lookup = Lookup("refresh", key=call.key, function=call.function)
        with pilot.observer.reading(lookup):
            outcome = await self._reading.refresh(pilot, call, caller, lookup)
            lookup.result = "miss"
        return _copied(call.policy, outcome.value)

    async def peek(self, wanted: Wanted, caller: Caller) -> dict[str, object]:
        """Return the values that are there, but for what the caller's transaction hides."""
        keys = [key for key in wanted.keys if not wanted.hides(key, wanted.tags)]
        entries = await self._reading.peek(wanted._replace(keys=keys), caller) if keys else {}
        found = {
            key: entry.value for key, entry in entries.items() if not wanted.hides(key, entry.tags)
        }
        if wanted.counters is not None:
            for _ in found:
                wanted.counters.hit(self._reading.level)
            wanted.counters.misses += len(wanted.keys) - len(found)
        return found

    async def aclose(self) -> None:
        """Close the connections that were opened for this."""
        await self._databases.aclose()


def strict_upon(
    guarded: Sequence[GuardedTier],
    databases: Databases,
    loading: Callable[[GuardedStrict], StrictLoading],
    *,
    name: str,
    local: Local,
    recovery: Recovery,
    invalidation: Invalidation,
    clock: Clock,
    portal: Portal,
    caller: Caller,
) -> Strict | None:
    """Return the strict keys of a cache with these shared tiers: in Redis, else in the database.

    ``loading`` makes the slow path upon a tier.
    """
    marking: Marking
    standby: Standby
    redis = next((tier for tier in guarded if tier.kind == "redis"), None)
    if redis is not None:
        from tiercache.tiers.redis import RedisTier

        if not isinstance(redis.tier, RedisTier):
            return None
        face = StrictRedis(redis.tier, name)
        marks = GuardedMarks(face, redis)
        standby = upkeep = Upkeep(marks, databases, invalidation, portal, caller)
        marking = RedisMarking(marks, databases, upkeep, clock)
        tier = GuardedStrict(face, redis)
    else:
        from tiercache.tiers.database import DatabaseTier

        if not guarded or not isinstance(guarded[0].tier, DatabaseTier):
            return None
        database = StrictDatabase(guarded[0].tier, name)
        standby = marking = DatabaseMarking(database, guarded[0], clock)
        tier = GuardedStrict(database, guarded[0])
    return Strict(StrictReading(loading(tier), local, recovery, clock, standby), marking, databases)


def _copied(policy: CachePolicy, value: object) -> object:
    copy = copier(policy.copy)
    return value if copy is None else copy(value)
