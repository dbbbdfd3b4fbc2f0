"""Expired first, then least recently used: the order of cachetools' `TTLCache` and `TLRUCache`.

Each slot has its own time to live, as in a `TLRUCache`; but what such a cache does about time is
no use at a large size. It removes whatever has expired in one go, 350 ms for a million entries, and
rebuilds its heap of deadlines when half of it is out of date, 1.8 s for a million. The memory tier
finds expired slots by time buckets, and takes them out in small batches before it asks for a
victim. What is left for cachetools to decide is who was used least recently.
"""

from __future__ import annotations

from cachetools import LRUCache

from tiercache.entry import FOREVER
from tiercache.eviction.ordered import Ordered


class TTL(Ordered):
    """Evicts the slot whose last use is longest ago; the tier has taken out the expired ones."""

    def __init__(self) -> None:
        super().__init__(LRUCache(maxsize=FOREVER))
