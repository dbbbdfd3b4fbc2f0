"""L1: slots in the memory of this process, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from tiercache._clock import Clock, SystemClock
from tiercache.entry import FOREVER, Slot
from tiercache.errors import PolicyError
from tiercache.eviction.cost import entry_cost
from tiercache.eviction.expiry import Expiry

if TYPE_CHECKING:
    from tiercache.eviction.base import Eviction
    from tiercache.eviction.custom import AnyCache

DEFAULT_ENTRIES: Final = 10_000

SWEPT_PER_STORE: Final = 4
"""Expired slots that every store takes out: more than it puts in, so they cannot pile up."""


class MemoryTier:
    """Holds values as they are, up to ``max_entries`` of them and ``max_bytes`` in all.

    ``max_entries`` is 10,000 where nothing else bounds the tier. ``max_bytes`` counts each value
    with everything it refers to, its key and the tier's own structures: measured where a value is
    stored, and estimated once it has some thousand parts. A value that alone is larger is not kept.

    ``eviction`` chooses what leaves when a bound is reached: ``"default"`` (a W-TinyLFU that adapts
    to what is asked for), ``"lru"``, ``"lfu"`` with counts that age, ``"ttl"`` (least recently
    used), or an empty instance of a ``cachetools`` cache, whose own ``maxsize`` then bounds the
    tier too. If it has a ``ttl``, that decides when a value makes room; how long a value may be
    served is for the cache's ttl to say. Expired entries leave before live ones, in any order.

    A tier belongs to one cache. `PolicyError` for a setting that cannot be meant.

    ``lookup``, ``touch``, ``entries`` and ``memory`` may be used from any thread without a lock;
    everything else needs the lock of the cache. ``lookup`` is the table's own ``get``, and stays
    the same object for ever. A hit calls ``touch`` with its slot, or where that is None counts in
    ``slot.visited``.
    """

    def __init__(
        self,
        *,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        eviction: Literal["default", "lru", "lfu", "ttl"] | AnyCache = "default",
    ) -> None:
        self._max_entries = _bound("max_entries", max_entries)
        self._max_bytes = _bound("max_bytes", max_bytes)
        bounded = max_entries is not None or max_bytes is not None
        self._table: dict[str, Slot] = {}
        self._order: Eviction
        if isinstance(eviction, str):
            self._order = _order(eviction, self._table.get)
        else:
            from tiercache.eviction.custom import Custom

            self._order = custom = Custom(eviction, self._left)
            bounded = bounded or custom.bounded
            self._max_entries = min(filter(None, (max_entries, custom.max_entries)), default=None)
        if not bounded:
            self._max_entries = DEFAULT_ENTRIES
        self._most = FOREVER if self._max_entries is None else self._max_entries
        self._bytes = 0
        self._expiry = Expiry()
        self._clock: Clock = SystemClock()
        self._evicted: Callable[[str], None] | None = None
        self.lookup: Callable[[str], Slot | None] = self._table.get
        self.touch = self._order.touch

    @property
    def entries(self) -> tuple[int, int | None]:
        """How many entries are held, and how many may be; None where only bytes are bounded."""
        return len(self._table), self._max_entries

    @property
    def memory(self) -> tuple[int, int] | None:
        """How many bytes are held, and how many may be; None without ``max_bytes``."""
        return None if self._max_bytes is None else (self._bytes, self._max_bytes)

    def bind(self, clock: Clock, evicted: Callable[[str], None]) -> None:
        """Attach to one cache; ``evicted(reason)`` counts what leaves by itself.

        Reasons are ``capacity``, ``expired`` and ``rejected``; what is overwritten, invalidated or
        cleared is not an eviction. The same cache may bind again, with an equal ``evicted``;
        `PolicyError` for another one.
        """
        if self._evicted is not None and self._evicted != evicted:
            raise PolicyError(
                "tiers: this MemoryTier belongs to another cache already; "
                "entries of two caches must not share keys and bounds, give each its own tier"
            )
        self._clock = clock
        self._evicted = evicted

    def store(self, slot: Slot) -> bool:
        """Put a slot in the place of any other of its key; False if it is too large to be held.

        Slots whose time is over make room first. A slot is stored once: what changes is a new one.
        """
        key, table, expiry = slot.key, self._table, self._expiry
        old = table.get(key)
        if old is not None:
            expiry.discard(old)  # it is overwritten now: its expiry is no eviction any more
        now, swept = self._clock.monotonic(), 0
        if now >= expiry.soonest:
            swept = self._sweep(now, SWEPT_PER_STORE)
            old = table.get(key)  # a finaliser may have changed anything, here and below
        if self._max_bytes is not None:
            slot.cost = entry_cost(slot)
            if slot.cost > self._max_bytes:
                self.discard(key)
                self._retire(slot, "rejected")
                return False
            while self._full(slot):
                swept = self._make_room(key, now, swept)
            old = table.get(key)
        else:
            while old is None and len(table) >= self._most:
                swept = self._make_room(key, now, swept)
                old = table.get(key)
        table[key] = slot
        self._bytes += slot.cost
        expiry.add(slot)
        if old is None:
            self._order.add(slot)
        else:
            expiry.discard(old)  # a finaliser may have stored it just now
            self._bytes -= old.cost
            self._order.replace(old, slot)
            old.retire()
        return table.get(key) is slot

    def discard(self, key: str) -> bool:
        """Take the key's slot out and retire it; False if there was none."""
        slot = self._table.get(key)
        if slot is None:
            return False
        self._order.discard(slot)
        self._left(slot, None)
        return True

    def clear(self) -> int:
        """Retire every slot; return how many there were."""
        count = len(self._table)
        for slot in self._table.values():
            slot.retire()
        self._order.clear()
        self._expiry.clear()
        self._bytes = 0
        self._table.clear()
        return count

    def sweep(self, limit: int) -> int:
        """Retire up to ``limit`` slots whose time is over; return how many it did."""
        count = len(self._table)
        self._order.settle()
        self._sweep(self._clock.monotonic(), limit)
        return count - len(self._table)

    def __repr__(self) -> str:
        return f"MemoryTier(max_entries={self._max_entries}, max_bytes={self._max_bytes})"

    def _full(self, slot: Slot) -> bool:
        """Whether something has to leave before the slot can come in, where bytes are bounded."""
        assert self._max_bytes is not None
        old = self._table.get(slot.key)
        if old is None:
            return len(self._table) >= self._most or self._bytes + slot.cost > self._max_bytes
        return self._bytes - old.cost + slot.cost > self._max_bytes

    def _make_room(self, key: str, now: float, swept: int) -> int:
        """Let go of what is over, or of one slot for the key, whose own old slot is no eviction.

        A function of its own, so that the victim's value is dropped on returning, when everything
        agrees again: a finaliser may call the cache. Return how many were over, if that was known.
        """
        if swept:
            return self._sweep(now, SWEPT_PER_STORE)
        victim = self._order.victim()
        self._left(victim, None if victim.key == key else "capacity")
        return 0

    def _sweep(self, now: float, limit: int) -> int:
        due = self._expiry.due(now, limit)
        if due:
            table, discard, evicted = self._table, self._order.discard, self._evicted
            for slot in due:
                key = slot.key
                if table.get(key) is not slot:  # a finaliser took it out just now
                    continue
                discard(slot)
                if table.get(key) is slot:  # else a user's order has reported it before
                    del table[key]
                    self._bytes -= slot.cost
                    slot.retire()
                    if evicted is not None:
                        evicted("expired")
        return len(due)

    def _left(self, slot: Slot, reason: str | None) -> None:
        """Take out a slot that the order has forgotten already; with a reason it is an eviction."""
        table, key = self._table, slot.key
        if table.get(key) is slot:  # else a user's order has reported it before
            del table[key]
            self._bytes -= slot.cost
            self._expiry.discard(slot)
            slot.retire()
            if reason is not None and self._evicted is not None:
                self._evicted(reason)

    def _retire(self, slot: Slot, reason: str) -> None:
        slot.retire()
        if self._evicted is not None:
            self._evicted(reason)


def _bound(field: str, value: int | None) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise PolicyError(f"{field}={value!r}: give a whole number of 1 or more, or None")
    return value


def _order(eviction: str, find: Callable[[str], Slot | None]) -> Eviction:
    """Make the order by its name; cachetools is loaded only for those that need it."""
    match eviction:
        case "default":
            from tiercache.eviction.default import Adaptive

            return Adaptive(find)
        case "lru":
            from tiercache.eviction.lru import LRU

            return LRU()
        case "lfu":
            from tiercache.eviction.lfu import LFU

            return LFU()
        case "ttl":
            from tiercache.eviction.ttl import TTL

            return TTL()
        case _:
            raise PolicyError(
                f"eviction={eviction!r}: give 'default', 'lru', 'lfu', 'ttl' "
                "or an instance of a cachetools cache"
            )
