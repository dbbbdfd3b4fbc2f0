"""The eviction protocol: an order among slots, nothing else; bounds are the memory tier's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tiercache.entry import Slot


class Eviction(Protocol):
    """Decides which slot leaves next. Called under the cache's lock, but for ``touch``.

    ``slot.cost`` is what the slot takes of the bound in force: bytes, or 1 where entries count. It
    does not change while the slot is held.
    """

    @property
    def touch(self) -> Callable[[Slot], None] | None:
        """What a hit calls, from any thread, unlocked; None: ``slot.visited`` will do."""
        ...

    def add(self, slot: Slot) -> None:
        """Take a slot in; its key is not in the order now."""
        ...

    def replace(self, old: Slot, new: Slot) -> None:
        """Put a slot in the place of another of its key: a refreshed entry keeps its standing."""
        ...

    def discard(self, slot: Slot) -> None:
        """Forget a slot that left for another reason."""
        ...

    def victim(self) -> Slot:
        """Choose the slot that leaves and forget it; called only when at least one is held."""
        ...

    def settle(self) -> None:
        """Catch up with what happened outside the lock; called now and then."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...
