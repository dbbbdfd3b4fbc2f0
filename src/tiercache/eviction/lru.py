"""Least recently used first."""

from __future__ import annotations

from cachetools import LRUCache

from tiercache.entry import FOREVER
from tiercache.eviction.ordered import Ordered


class LRU(Ordered):
    """Evicts the slot whose last use is longest ago, by `cachetools.LRUCache`."""

    def __init__(self) -> None:
        super().__init__(LRUCache(maxsize=FOREVER))
