"""Ask a memory tier for every key of a trace, as a cache does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tiercache.entry import FOREVER, Slot
from tiercache.tiers.memory import MemoryTier

_STEP: Final = 20_000
"""Requests between two reports of progress."""


def replay(keys: Sequence[str], policy: Any, size: int, advance: Callable[[int], None]) -> float:
    """Return the hits in per cent; tell ``advance`` of the requests done since the last time."""
    tier = MemoryTier(max_entries=size, eviction=policy)
    lookup, store, touch = tier.lookup, tier.store, tier.touch
    hits = 0
    for start in range(0, len(keys), _STEP):
        part = keys[start : start + _STEP]
        for key in part:
            slot = lookup(key)
            if slot is None:
                store(
                    Slot(
                        key,
                        None,
                        created=0.0,
                        refresh_at=FOREVER,
                        expires=FOREVER,
                        stale_until=FOREVER,
                    )
                )
                continue
            hits += 1
            slot.visited += 1
            if touch is not None:
                touch(slot)
        advance(len(part))
    return 100 * hits / len(keys)
