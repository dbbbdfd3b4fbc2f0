"""Whose time is over, found without looking at the others.

Slots lie in buckets of half a second by the time they stop being of any use. A bucket is a dict, so
taking a slot in or out costs the same whatever else is there (a set would do, and takes 0.8 to 3.6
times the memory); a heap holds the buckets' numbers, so time may be sparse. Buckets that are over
are emptied slot by slot, as many at a time as the caller likes; in the bucket that is not over yet,
a few slots are looked at each time, so that a small cache is exact and a large one at most half a
second late.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from tiercache.entry import FOREVER, Slot

RESOLUTION: Final = 0.5
"""Width of a bucket in seconds."""

SLACK: Final = 64
"""Numbers of vanished buckets the heap may hold beside as many as there are buckets."""


class Expiry:
    """Slots by the end of their life. Every call needs the cache's lock."""

    def __init__(self, resolution: float = RESOLUTION) -> None:
        self._buckets: dict[int, dict[Slot, None]] = {}
        self._seen: dict[Slot, None] = {}
        self._seen_in = 0
        """Those of one bucket that were looked at before their time, and its number."""
        self._numbers: list[int] = []
        self._resolution = resolution
        self.soonest = FOREVER
        """Before this time nothing is due."""

    def __len__(self) -> int:
        """Return how many slots will expire one day."""
        return sum(map(len, self._buckets.values())) + len(self._seen)

    def add(self, slot: Slot) -> None:
        """Take a slot in; one that never expires is not kept."""
        if slot.stale_until == FOREVER:
            return
        number = int(slot.stale_until // self._resolution)
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = {slot: None}
            self._push(number)
        else:
            bucket[slot] = None

    def discard(self, slot: Slot) -> None:
        """Forget a slot, if it is there; it must have the time still that it came with."""
        if slot.stale_until == FOREVER:
            return
        number = int(slot.stale_until // self._resolution)
        bucket = self._buckets.get(number)
        if bucket is None:
            return
        if slot in bucket:
            del bucket[slot]
        elif slot in self._seen:
            del self._seen[slot]
        if not bucket and not self._rest(number):
            # Its number stays in the heap until its time comes, or until there are too many.
            del self._buckets[number]

    def due(self, now: float, limit: int) -> list[Slot]:
        """Take out and return slots whose ``stale_until`` has passed; look at ``limit`` at most."""
        found: list[Slot] = []
        numbers = self._numbers
        current = now // self._resolution
        while limit > 0 and numbers and numbers[0] <= current:
            number = numbers[0]
            bucket = self._buckets.get(number)
            if bucket is None:
                heappop(numbers)
                continue
            looked_at = [bucket.popitem()[0] for _ in range(min(limit, len(bucket)))]
            limit -= len(looked_at)
            if number == current:
                # Aside, so that the next call looks at others.
                self._seen_in = number
                self._seen.update((slot, None) for slot in looked_at if slot.stale_until > now)
                looked_at = [slot for slot in looked_at if slot.stale_until <= now]
            found += looked_at
            if not bucket:
                if self._rest(number):
                    self._buckets[number], self._seen = self._seen, bucket
                else:
                    del self._buckets[number]
            if number == current:
                break
        self.soonest = numbers[0] * self._resolution if numbers else FOREVER
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._buckets.clear()
        self._seen.clear()
        self._numbers.clear()
        self.soonest = FOREVER

    def _rest(self, number: int) -> bool:
        """Whether slots of the bucket were looked at and put aside."""
        return self._seen_in == number and bool(self._seen)

    def _push(self, number: int) -> None:
        """Note a new bucket; a key that comes and goes must not fill the heap."""
        if len(self._numbers) >= 2 * len(self._buckets) + SLACK:
            self._numbers = list(self._buckets)
            heapify(self._numbers)
        else:
            heappush(self._numbers, number)
        self.soonest = self._numbers[0] * self._resolution
