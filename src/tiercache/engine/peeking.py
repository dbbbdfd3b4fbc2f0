"""Looking without loading: what the tiers hold at this moment."""

from __future__ import annotations

from collections.abc import Sequence

from tiercache._clock import Clock
from tiercache.callers import Caller
from tiercache.loading import Loading, Wanted, copier
from tiercache.local import Local
from tiercache.telemetry.observer import Lookup, Observer
from tiercache.tiers.base import Ask


class Peeking:
    """Finds entries that are there; what is found below fills L1."""

    def __init__(self, local: Local, loading: Loading, clock: Clock, observer: Observer) -> None:
        self._local = local
        self._loading = loading
        self._clock = clock
        self._observer = observer

    async def peek(self, wanted: Wanted, caller: Caller, *, fills: bool) -> dict[str, object]:
        """Return the fresh values; ``fills``: what is found below may go into L1."""
        counters = wanted.counters
        found: dict[str, object] = {}
        below: list[str] = []
        copy = copier(wanted.policy.copy)
        now = self._clock.monotonic()
        for key in wanted.keys:
            if wanted.hides(key, wanted.tags):
                continue
            slot = self._local.lookup(key, wanted.tags)
            if slot is None or now >= slot.expires:
                below.append(key)
            elif not wanted.hides(key, slot.tags):
                self._local.touch(slot)
                found[key] = slot.value if copy is None else copy(slot.value)
                if counters is not None:
                    counters.l1 += 1
        if below and self._loading.tiers:
            found.update(await self._glance(wanted, below, caller, fills=fills))
        if counters is not None:
            counters.misses += sum(key not in found for key in wanted.keys)
        return found

    async def _glance(
        self, wanted: Wanted, keys: Sequence[str], caller: Caller, *, fills: bool
    ) -> dict[str, object]:
        """Ask the shared tiers."""
        found: dict[str, object] = {}
        copy = copier(wanted.policy.copy)
        flights = {key: self._local.begin(key, wanted.tags) for key in keys}
        lookup = Lookup("get", key=keys[0], key_count=len(keys) if len(keys) > 1 else None)
        try:
            with self._observer.reading(lookup):
                entries = await self._loading.glance(
                    [Ask(key, wanted.tags) for key in keys], wanted.type, caller
                )
                for key, (entry, level) in entries.items():
                    if wanted.hides(key, entry.tags):
                        continue
                    if fills:
                        slot = self._loading.slot(key, entry, wanted.policy, started=None)
                        self._local.fill(flights[key], slot)
                    found[key] = entry.value if copy is None else copy(entry.value)
                    lookup.result, lookup.tier = "hit", level
                    if wanted.counters is not None:
                        wanted.counters.hit(level)
                if not found:
                    lookup.result = "miss"
        finally:
            for flight in flights.values():
                self._local.land(flight, None)
        return found
