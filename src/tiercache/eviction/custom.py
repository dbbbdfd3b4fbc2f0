"""A cachetools cache of the user's own as the order, whatever it does inside.

Such a cache evicts by itself while it is assigned to: it calls its own ``popitem``, and ``expire``
if it knows of time. Both are shadowed on the instance, so that every key it drops is noticed at
once; what it drops in any other way is found by comparing lengths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast

from cachetools import Cache

from tiercache.entry import FOREVER, Slot
from tiercache.errors import PolicyError
from tiercache.eviction.touches import Touches

AnyCache: TypeAlias = "Cache[Any, Any]"


class Custom:
    """Lets a given cachetools cache decide, its ``maxsize`` and ``getsizeof`` included.

    The cache holds keys and values as it would for its user. ``left(slot, reason)`` is called for
    every slot that it drops by itself (``capacity``, ``expired``) or does not take (``rejected``),
    at the end of the call in which it did.
    """

    def __init__(self, cache: AnyCache, left: Callable[[Slot, str], None]) -> None:
        if not isinstance(cache, Cache):
            raise PolicyError(
                f"eviction={cache!r}: give 'default', 'lru', 'lfu', 'ttl' "
                "or an instance of a cachetools cache"
            )
        if isinstance(getattr(vars(cache).get("popitem"), "__self__", None), Custom):
            raise PolicyError(
                f"eviction={type(cache).__name__}: this instance orders another tier already; "
                "give every MemoryTier a cache of its own"
            )
        if len(cache):
            raise PolicyError(
                f"eviction={type(cache).__name__}: it holds {len(cache)} entries already; "
                "give an empty cache, it is filled by the tier alone"
            )
        if not cache.maxsize >= 1:
            raise PolicyError(
                f"eviction={type(cache).__name__}: maxsize={cache.maxsize!r} holds nothing; "
                "give 1 or more"
            )
        self._cache = cache
        self._left = left
        self._slots: dict[str, Slot] = {}
        self._dropped: deque[tuple[Slot, str]] = deque()
        self._touches = Touches()
        self.touch: Callable[[Slot], None] = self._touches.append
        vars(cache)["popitem"] = self._popitem
        if hasattr(cache, "expire"):
            vars(cache)["expire"] = self._expire

    @property
    def max_entries(self) -> int | None:
        """How many slots the cache holds at most; None where it measures them or has no bound."""
        if self._cache.getsizeof is not Cache.getsizeof or self._cache.maxsize == FOREVER:
            return None
        return int(self._cache.maxsize)

    @property
    def bounded(self) -> bool:
        """Whether the cache itself bounds what it holds."""
        return self._cache.maxsize != FOREVER

    def add(self, slot: Slot) -> None:
        """Offer a slot to the cache, which may drop others; whatever it does not take is rejected.

        What the cache's own code raises passes through, but for the `ValueError` of a value that is
        larger than its ``maxsize``.
        """
        self._replay()
        key = slot.key
        try:
            self._cache[key] = slot.value
        except ValueError:
            self._forget(key)  # the value it had before is still there
        finally:
            if key in self._cache:
                # Only now: while it makes room for the new value, the cache may drop the old one.
                self._slots[key] = slot
            else:
                self._slots.pop(key, None)
                self._dropped.append((slot, "rejected"))
            self._report()

    def replace(self, old: Slot, new: Slot) -> None:
        """Assign the key anew, as the cache's user would."""
        self.add(new)

    def discard(self, slot: Slot) -> None:
        """Take the key out."""
        self._replay()
        self._forget(slot.key)
        self._report()

    def victim(self) -> Slot:
        """Take out what the cache chooses, unless it has dropped something already."""
        self._replay()
        self._compare()
        while not self._dropped:
            try:
                self._cache.popitem()  # our shadow: it notes what went
            except KeyError:
                if not self._dropped:  # else the last ones expired just now
                    raise
        slot, _ = self._dropped.popleft()
        self._report()
        return slot

    def settle(self) -> None:
        """Replay hits, and let a cache that knows of time look at its clock."""
        self._replay()
        self._report()

    def clear(self) -> None:
        """Empty the cache without reporting anything."""
        self._touches.clear()
        self._slots.clear()
        self._cache.clear()
        self._dropped.clear()

    def _forget(self, key: str) -> None:
        self._slots.pop(key, None)
        try:
            del self._cache[key]
        except KeyError:
            pass  # not there; or it has expired, which a timed cache says only after deleting it

    def _replay(self) -> None:
        for slot in self._touches.drain():
            self._cache.get(slot.key)

    def _drop(self, key: str, reason: str) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._dropped.append((slot, reason))

    def _popitem(self) -> tuple[Any, Any]:
        """Stand in for the cache's own ``popitem``."""
        item = type(self._cache).popitem(self._cache)
        self._drop(item[0], "capacity")
        return item

    def _expire(self, *args: Any, **kwargs: Any) -> Iterable[tuple[Any, Any]]:
        """Stand in for the cache's own ``expire``."""
        cache = cast("Any", self._cache)
        items: Iterable[tuple[Any, Any]] = list(type(cache).expire(cache, *args, **kwargs) or ())
        for key, _ in items:
            self._drop(key, "expired")
        return items

    def _compare(self) -> None:
        """Notice what went unseen. Asking for the length makes a timed cache expire as well."""
        if len(self._cache) < len(self._slots):
            for key in [key for key in self._slots if key not in self._cache]:
                self._drop(key, "capacity")

    def _report(self) -> None:
        self._compare()
        while self._dropped:
            self._left(*self._dropped.popleft())
