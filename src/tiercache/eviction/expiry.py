"""Whose time is over, found without looking at the others.

Slots lie in buckets of half a second by the time they stop being of any use. A bucket runs through
its slots, as a `Queue` does, so taking one in or out costs the same whatever else is there; a heap
holds the buckets' numbers, so time may be sparse. Buckets that are over are emptied slot by slot,
as many at a time as the caller likes; in the bucket that is not over yet, a few slots are looked at
each time, so that a small cache is exact and a large one at most half a second late.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Final

from tiercache.entry import FOREVER, Slot

RESOLUTION: Final = 0.5
"""Width of a bucket in seconds."""

SLACK: Final = 64
"""Numbers of vanished buckets the heap may hold beside as many as there are buckets."""


class Bucket:
    """Stands between the first and the last of its slots; a bucket without any is thrown away."""

    __slots__ = ("bucket_next", "bucket_prev", "number")

    def __init__(self, number: float) -> None:
        self.number = number
        self.bucket_prev: Any = self
        self.bucket_next: Any = self


class Expiry:
    """Slots by the end of their life. Every call needs the cache's lock."""

    def __init__(self, resolution: float = RESOLUTION) -> None:
        self._buckets: dict[float, Bucket] = {}
        self._numbers: list[float] = []
        self._resolution = resolution
        self.soonest = FOREVER
        """Before this time nothing is due."""

    def add(self, slot: Slot) -> None:
        """Take a slot in; one that never expires is not kept."""
        until = slot.stale_until
        if until == FOREVER:
            return
        number = until // self._resolution
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = Bucket(number)
            self._push(number)
        last = bucket.bucket_prev
        slot.bucket_prev = last
        slot.bucket_next = bucket
        last.bucket_next = bucket.bucket_prev = slot

    def discard(self, slot: Slot) -> None:
        """Forget a slot, if it is there."""
        after = slot.bucket_next
        if after is None:
            return
        before = slot.bucket_prev
        before.bucket_next = after
        after.bucket_prev = before
        slot.bucket_prev = slot.bucket_next = None
        if before is after:  # the bucket itself
            # Its number stays in the heap until its time comes, or until there are too many.
            self._buckets.pop(after.number, None)

    def due(self, now: float, limit: int) -> list[Slot]:
        """Take out and return slots whose ``stale_until`` has passed; look at ``limit`` at most."""
        found: list[Slot] = []
        numbers, buckets = self._numbers, self._buckets
        current = now // self._resolution
        while limit > 0 and numbers and numbers[0] <= current:
            number = numbers[0]
            bucket = buckets.get(number)
            if bucket is None:
                heappop(numbers)
            elif number == current:
                self._look(bucket, now, limit, found)
                break
            else:
                while limit > 0 and (slot := bucket.bucket_next) is not bucket:
                    limit -= 1
                    bucket.bucket_next = after = slot.bucket_next
                    after.bucket_prev = bucket
                    slot.bucket_prev = slot.bucket_next = None
                    found.append(slot)
                if bucket.bucket_next is bucket:
                    buckets.pop(number, None)
        self.soonest = numbers[0] * self._resolution if numbers else FOREVER
        return found

    def clear(self) -> None:
        """Forget everything."""
        for bucket in self._buckets.values():
            slot = bucket.bucket_next
            while slot is not bucket:
                after = slot.bucket_next
                slot.bucket_prev = slot.bucket_next = None
                slot = after
            bucket.bucket_prev = bucket.bucket_next = bucket
        self._buckets.clear()
        self._numbers.clear()
        self.soonest = FOREVER

    def _look(self, bucket: Bucket, now: float, limit: int, found: list[Slot]) -> None:
        """Take from a bucket that is not over; who may stay goes to its end, behind the unseen."""
        first_to_stay: Slot | None = None
        for _ in range(limit):
            slot = bucket.bucket_next
            if slot is bucket or slot is first_to_stay:
                break
            if slot.stale_until <= now:
                self.discard(slot)
                found.append(slot)
                continue
            first_to_stay = first_to_stay or slot
            last = bucket.bucket_prev
            if slot is not last:
                second = slot.bucket_next
                bucket.bucket_next = second
                second.bucket_prev = bucket
                slot.bucket_prev = last
                slot.bucket_next = bucket
                last.bucket_next = bucket.bucket_prev = slot

    def _push(self, number: float) -> None:
        """Note a new bucket; a key that comes and goes must not fill the heap."""
        if len(self._numbers) >= 2 * len(self._buckets) + SLACK:
            self._numbers = list(self._buckets)
            heapify(self._numbers)
        else:
            heappush(self._numbers, number)
        self.soonest = self._numbers[0] * self._resolution
