"""The seam between the cache and whoever watches it: facts are gathered first, reported once.

The null observer is the default of every part; `tiercache.telemetry.otel` is the real one. An L1
hit reports nothing: it is counted with a plain integer that an observable instrument reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

from tiercache.stats import Counters, Tally, TierCounters

Result = Literal["hit", "stale", "miss", "bypass"]
Reason = Literal["miss", "expired", "refresh_ahead", "stale", "forced"]
Scope = Literal["key", "tag", "all"]


class Lookup:
    """The facts of one operation that L1 could not answer, filled in while it goes its way."""

    __slots__ = ("coalesced", "function", "key", "key_count", "operation", "result", "tier")

    def __init__(
        self,
        operation: str,
        *,
        key: str | None = None,
        function: str | None = None,
        key_count: int | None = None,
    ) -> None:
        self.operation = operation
        self.key = key
        self.function = function
        self.key_count = key_count
        self.result: Result | None = None
        self.tier: str | None = None
        self.coalesced = False


class TierFigures(Protocol):
    """The current figures of one tier of a cache."""

    @property
    def level(self) -> str:
        """``l1``, ``l2`` or ``l3``."""
        ...

    @property
    def counters(self) -> TierCounters:
        """What it was asked."""
        ...

    @property
    def entries(self) -> tuple[int, int | None] | None:
        """Entries held, and the limit; None where it is not known."""
        ...

    @property
    def memory(self) -> tuple[int, int | None] | None:
        """Bytes held, and the limit; None where it is not counted."""
        ...

    @property
    def circuit(self) -> str | None:
        """``closed``, ``open`` or ``half_open``; None where there is no breaker."""
        ...


class Figures(Protocol):
    """What a cache shows to observable instruments; read from the exporter's thread."""

    @property
    def name(self) -> str:
        """The cache's name."""
        ...

    def counters(self) -> Counters:
        """Return the sum over all its functions and methods."""
        ...

    @property
    def coalesced_cluster(self) -> int:
        """Requests that were answered by waiting for a load of another process."""
        ...

    @property
    def tally(self) -> Tally:
        """Evictions and invalidations."""
        ...

    def tiers(self) -> Sequence[TierFigures]:
        """Return the figures of each tier."""
        ...

    @property
    def bus_connected(self) -> bool | None:
        """Whether the bus is connected; None where there is no bus."""
        ...


class Observer(Protocol):
    """Is told what happened. Never raises, never sees a value."""

    @property
    def sees_hits(self) -> bool:
        """Whether hits in L1 are to go through `reading` too; asked once, when decorating."""
        ...

    @property
    def records(self) -> bool:
        """Whether anybody takes what it is told now; asked before every read that L1 missed."""
        ...

    def watch(self, figures: Figures) -> None:
        """Publish a cache's figures for as long as it lives (a weak reference is kept)."""
        ...

    def reading(self, lookup: Lookup) -> AbstractContextManager[None]:
        """Surround an operation that L1 missed; the lookup is complete when it is left."""
        ...

    def loading(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround the user's function."""
        ...

    def refreshing(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround a background refresh: a new root, linked to what is current at the call."""
        ...

    def invalidating(self, scope: Scope, key_count: int) -> AbstractContextManager[None]:
        """Surround an explicit invalidation."""
        ...

    def tier_operation(self, level: str, operation: str, seconds: float, error: str | None) -> None:
        """Take the duration of one call of a remote tier, and its `error_type` if it failed."""
        ...

    def bus_event(self, lag: float) -> None:
        """Take the seconds between an event's publication and its application here."""
        ...


def error_type(error: BaseException) -> str:
    """Return what ``error.type`` says of an error: its class, with the module unless built in."""
    kind = type(error)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


_NOTHING = nullcontext()


class NullObserver:
    """Watches nothing, at the price of a method call."""

    __slots__ = ()

    sees_hits = False
    records = False

    def watch(self, figures: Figures) -> None:
        """Do nothing."""

    def reading(self, lookup: Lookup) -> AbstractContextManager[None]:
        """Surround with nothing."""
        return _NOTHING

    def loading(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround with nothing."""
        return _NOTHING

    def refreshing(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround with nothing."""
        return _NOTHING

    def invalidating(self, scope: Scope, key_count: int) -> AbstractContextManager[None]:
        """Surround with nothing."""
        return _NOTHING

    def tier_operation(self, level: str, operation: str, seconds: float, error: str | None) -> None:
        """Do nothing."""

    def bus_event(self, lag: float) -> None:
        """Do nothing."""
