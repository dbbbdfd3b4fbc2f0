"""What is asked for by those who look without loading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from tiercache.policy import CachePolicy
from tiercache.stats import Counters


class Scope(Protocol):
    """What an open transaction must not see."""

    def hides(self, key: str, tags: tuple[str, ...] | None) -> bool:
        """Whether the transaction must not see what the cache holds of this key."""
        ...


class Wanted(NamedTuple):
    """What is looked for: distinct keys, with these tags (None: whatever they carry).

    ``counters`` are those of a function, where one asks. ``scope`` is what an open transaction of
    the caller must not see.
    """

    keys: Sequence[str]
    tags: tuple[str, ...] | None
    type: Callable[[], Any]
    policy: CachePolicy
    counters: Counters | None = None
    scope: Scope | None = None

    def hides(self, key: str, tags: tuple[str, ...] | None) -> bool:
        """Whether the caller must not see what the cache holds of this key."""
        return self.scope is not None and self.scope.hides(key, tags)
