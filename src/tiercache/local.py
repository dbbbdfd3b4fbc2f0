"""What this process holds: entries, flights and tag generations, changed together in one step.

An invalidation removes entries and voids flights under one lock, so that there is no moment in
which the old value is gone but a load that began before can still put it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tiercache._clock import Clock
from tiercache._flight import Flight, Flights, Load, Outcome
from tiercache._gate import Gate
from tiercache.entry import Slot
from tiercache.generations import Generations
from tiercache.tiers.base import LocalTier


class Local:
    """L1 (if there is one) and the flights of one cache in one process."""

    def __init__(
        self, tier: LocalTier | None, clock: Clock, evicted: Callable[[str], None]
    ) -> None:
        # Re-entrant, because dropping an entry may run a finaliser that calls the cache again.
        self.lock = threading.RLock()
        self.gate = Gate()
        self.tier = tier
        self.flights = Flights(self.lock)
        self._clock = clock
        self._flights: dict[str, Flight] = {}
        self._unjoined: set[Flight] = set()
        self._generations = Generations()
        self._voids = 0
        self._begun = 0
        if tier is not None:
            tier.bind(clock, evicted)

    def lookup(self, key: str, tags: tuple[str, ...] | None) -> Slot | None:
        """Return the key's slot unless it is void, untrusted or carries other tags; maybe stale."""
        tier = self.tier
        if tier is None:
            return None
        slot = tier.lookup(key)
        if slot is None or (tags is not None and slot.tags != tags) or slot.void:
            return None
        now = self._clock.monotonic()
        if now >= slot.stale_until:
            return None
        if now >= self.gate.trusted_until and now >= slot.trusted_until:
            return None
        return slot

    def touch(self, slot: Slot) -> None:
        """Tell the eviction policy of a hit."""
        assert self.tier is not None
        slot.visited += 1
        if self.tier.touch is not None:
            self.tier.touch(slot)

    def enter(
        self,
        key: str,
        tags: tuple[str, ...],
        accept: Callable[[Slot], bool],
        may_join: Callable[[Load], bool],
    ) -> tuple[Flight, bool] | Slot:
        """Join the flight of the key or register a new one (True: the caller leads it).

        An entry that has come in since the caller looked, and that it accepts, is returned instead.
        """
        with self.lock:
            slot = self.lookup(key, tags)
            if slot is not None and accept(slot):
                return slot
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = self._new(key, tags)
                return flight, True
            load = flight.load
            if (
                flight.fills
                and flight.tags == tags
                and not flight.finished
                and load is not None
                and not load.dead
            ):
                if may_join(load):
                    return flight, False
                return self.begin(key, tags), True
            # Superseded, but it may still be filled: it stays where an invalidation finds it.
            self._unjoined.add(flight)
            flight = self._flights[key] = self._new(key, tags)
            return flight, True

    def lead(self, key: str, tags: tuple[str, ...]) -> Flight | None:
        """Register the flight of a key, and its load; None if it is held or on its way already."""
        with self.lock:
            flights = self._flights
            if key in flights:
                return None
            tier = self.tier
            if tier is not None and tier.lookup(key) is not None and self.lookup(key, tags):
                return None
            flight = flights[key] = self._new(key, tags)
            Load([flight])  # who joins finds the load on its flight
            return flight

    def begin(self, key: str, tags: tuple[str, ...] | None, *, forced: bool = False) -> Flight:
        """Register a flight that nobody joins: a copy from below, a forced refresh, `set`."""
        with self.lock:
            flight = self._new(key, tags)
            flight.forced = forced
            self._unjoined.add(flight)
            return flight

    def _new(self, key: str, tags: tuple[str, ...] | None) -> Flight:
        flight = Flight(
            key, tags, self._generations.marks(tags) if tags else (), self._clock.monotonic()
        )
        flight.voids_seen = self._voids
        self._begun += 1
        flight.number = self._begun
        return flight

    def fill(self, flight: Flight, slot: Slot) -> bool:
        """Store what the flight brought, unless it has been voided meanwhile."""
        with self.lock:
            if not flight.fills:
                return False
            if flight.forced:
                self._supersede(flight)
            if self.tier is None:
                return False
            if flight.tags is None:
                # Its tags were not known when it began: any tag invalidated since may be its own.
                if slot.tags and flight.voids_seen != self._voids:
                    return False
                slot.marks = self._generations.marks(slot.tags)
            else:
                slot.marks = flight.marks
            return self.tier.store(slot)

    def _supersede(self, forced: Flight) -> None:
        """Void the flights of the key that began before this one."""
        joined = self._flights.get(forced.key)
        if joined is not None and joined.number < forced.number:
            self._unjoined.add(self._flights.pop(forced.key))
        for flight in self._unjoined:
            if flight.key == forced.key and flight.number < forced.number:
                flight.void = True

    def land(
        self, flight: Flight, outcome: Outcome | None, error: BaseException | None = None
    ) -> None:
        """Take the flight out of the table and tell everybody who waits."""
        with self.lock:
            self._remove(flight)
            waiters = self.flights.end(flight, outcome, error)
        for waiter in waiters:
            waiter.wake()

    def bring(
        self, flight: Flight, slot: Slot, outcome: Outcome, name: Callable[[Slot], None]
    ) -> None:
        """Fill and land in one step, for a flight that `lead` has registered.

        ``name`` is called under the lock with what was stored.
        """
        with self.lock:
            live = not flight.void and (not flight.marks or flight.fills)
            if live and self.tier is not None and self.tier.store(slot):
                name(slot)
            self._remove(flight)
            waiters = self.flights.end(flight, outcome)
        for waiter in waiters:
            waiter.wake()

    def _remove(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        elif self._unjoined:
            self._unjoined.discard(flight)

    def void(self, keys: Sequence[str], tags: Sequence[str]) -> None:
        """Remove the entries of these keys and tags, and void the flights that carry them."""
        with self.lock:
            if tags:
                self._voids += 1
                self._generations.void(tags)
            self._void_flights(keys)
            if self.tier is not None:
                for key in keys:
                    self.tier.discard(key)

    def void_all(self) -> None:
        """Remove every entry and void every flight."""
        with self.lock:
            self._voids += 1
            self._unjoined.update(self._flights.values())
            self._flights.clear()
            for flight in self._unjoined:
                flight.void = True
            if self.tier is not None:
                self.tier.clear()

    def _void_flights(self, keys: Sequence[str]) -> None:
        for key in keys:
            flight = self._flights.pop(key, None)
            if flight is not None:
                self._unjoined.add(flight)
        for flight in self._unjoined:
            if flight.key in keys:
                flight.void = True

    def sweep(self, limit: int) -> int:
        """Drop up to ``limit`` entries whose time is over."""
        if self.tier is None:
            return 0
        with self.lock:
            return self.tier.sweep(limit)

    def loads(self) -> list[Load]:
        """Return the loads under way, for closing."""
        with self.lock:
            flights = (*self._flights.values(), *self._unjoined)
            found = {id(f.load): f.load for f in flights if f.load is not None}
            return list(found.values())
