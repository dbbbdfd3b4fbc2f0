"""A remote tier behind its circuit, counted; what is asked in one turn of a loop goes together.

The engine, the outbox and the sweeper see tiers only through this.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Final

from tiercache.tiers.base import (
    Ask,
    Basis,
    Blocking,
    Fill,
    Filled,
    Kind,
    Leased,
    RemoteTier,
    Stored,
    SupportsSync,
)
from tiercache.tiers.circuit import Circuit, open_only
from tiercache.tiers.gathering import Gathering

_KINDS: Final = 8
"""Kinds of leases whose requests are gathered; there are two ttls, each with and without
patience."""

_Invalidation = tuple[Sequence[str], Sequence[str], Sequence[bytes]]
"""Keys, tags and events of one request."""


class GuardedTier:
    """A `RemoteTier` that fails fast, from any loop and thread; every failure is a `TierError`."""

    def __init__(self, tier: RemoteTier, guard: Circuit) -> None:
        self.tier: Final = tier
        self.guard: Final = guard
        self.level: Final = guard.level
        self.counters: Final = guard.counters
        self._sync = tier if isinstance(tier, SupportsSync) else None
        self._reads: Gathering[Ask, Stored | None] = Gathering(self._read)
        self._leases: dict[tuple[float, bool], Gathering[Ask, Basis | Leased]] = {}
        self._releases: Gathering[Basis, bool] = Gathering(self._release)
        self._fills: Gathering[Fill, Filled] = Gathering(self._fill)
        self._invalidations: Gathering[_Invalidation, None] = Gathering(self._invalidate)

    def __repr__(self) -> str:
        return f"<{self.level} {self.tier!r}, circuit {self.circuit}>"

    @property
    def origin(self) -> GuardedTier:
        """The tier that this is a view of: itself, if it is none."""
        return self

    @property
    def kind(self) -> Kind:
        """What the tier is."""
        return self.tier.kind

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self.tier.timeout

    @property
    def circuit(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        return self.guard.state

    @property
    def entries(self) -> None:
        """None: a server does not say how many entries are this cache's."""
        return

    @property
    def memory(self) -> None:
        """None: as `entries`."""
        return

    @property
    def blocking(self) -> Blocking | None:
        """The operations in the caller's thread: the same circuit, no time limit."""
        inner = self._sync.blocking if self._sync is not None else None
        return None if inner is None else GuardedBlocking(self, inner)

    async def open(self) -> None:
        """Open the tier now rather than at its first use."""
        await self.guard.carry("open", open_only)

    async def ping(self) -> None:
        """Ask the tier for a sign of life."""
        await self.guard.carry("ping", self.tier.ping)

    async def prune(self, limit: int) -> int:
        """Delete up to ``limit`` entries whose time is over; return how many."""
        return await self.guard.carry("prune", lambda: self.tier.prune(limit))

    async def aclose(self) -> None:
        """Close the tier and probe it no longer; a later use opens it anew."""
        self.guard.reset()
        await self.tier.aclose()

    def read(self, asks: Sequence[Ask]) -> Coroutine[Any, Any, list[Stored | None]]:
        """As `Operations.read`."""
        for ask in asks:
            if ask.tags is None:  # it may take a second round trip, for which nobody shall wait
                return self._read(asks)
        self.guard.expect("read")
        return self._reads.ask(asks)

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        self.guard.expect("lease")
        gathering = self._leases.get((ttl, patient))
        if gathering is None:
            if len(self._leases) >= _KINDS:
                return await self._lease(asks, ttl, patient)
            gathering = self._leases[ttl, patient] = Gathering(
                lambda asks: self._lease(asks, ttl, patient), about=_key
            )
        return await gathering.ask(asks)

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        return await self.guard.carry("renew", lambda: self.tier.renew(bases, ttl))

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        self.guard.expect("release")
        return await self._releases.ask(bases)

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        self.guard.expect("fill")
        return await self._fills.ask(fills)

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self.guard.expect("invalidate")
        size = len(keys) + len(tags) + len(events)
        await self._invalidations.ask([(keys, tags, events)], size)

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        await self.guard.carry("clear", lambda: self.tier.clear(events))

    async def _read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        return self.count_read(await self.guard.carry("read", lambda: self.tier.read(asks)))

    async def _lease(self, asks: Sequence[Ask], ttl: float, patient: bool) -> list[Basis | Leased]:
        return await self.guard.carry("lease", lambda: self.tier.lease(asks, ttl, patient))

    async def _release(self, bases: Sequence[Basis]) -> list[bool]:
        return await self.guard.carry("release", lambda: self.tier.release(bases))

    async def _fill(self, fills: Sequence[Fill]) -> list[Filled]:
        filled = await self.guard.carry("fill", lambda: self.tier.fill(fills))
        self.count_written(fills)
        return filled

    async def _invalidate(self, requests: Sequence[_Invalidation]) -> list[None]:
        """Do what several ask for in one step; the events keep their order."""
        keys = list(dict.fromkeys(key for its, _, _ in requests for key in its))
        tags = list(dict.fromkeys(tag for _, its, _ in requests for tag in its))
        events = [event for _, _, its in requests for event in its]
        await self.guard.carry("invalidate", lambda: self.tier.invalidate(keys, tags, events))
        return [None] * len(requests)

    def count_read(self, found: list[Stored | None]) -> list[Stored | None]:
        """Count hits, misses and bytes; return what was found."""
        payloads = [stored.payload for stored in found if stored is not None]
        hits, size = len(payloads), sum(map(len, payloads))
        misses = len(found) - hits
        self.counters.hits += hits
        self.counters.misses += misses
        self.counters.bytes_read += size
        return found

    def count_written(self, fills: Sequence[Fill]) -> None:
        """Count the bytes of the payloads."""
        size = sum(len(fill.payload) for fill in fills)
        self.counters.bytes_written += size


def _key(ask: Ask) -> str:
    return ask.key


class GuardedBlocking:
    """`Blocking` behind the circuit of its tier, without a time limit."""

    __slots__ = ("_carry", "_guarded", "_inner")

    def __init__(self, guarded: GuardedTier, inner: Blocking) -> None:
        self._guarded = guarded
        self._carry = guarded.guard.carry_blocking
        self._inner = inner

    def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        return self._guarded.count_read(self._carry("read", lambda: self._inner.read(asks)))

    def lease(self, asks: Sequence[Ask], ttl: float, patient: bool = False) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        return self._carry("lease", lambda: self._inner.lease(asks, ttl, patient))

    def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return self._carry("release", lambda: self._inner.release(bases))

    def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        filled = self._carry("fill", lambda: self._inner.fill(fills))
        self._guarded.count_written(fills)
        return filled

    def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self._carry("invalidate", lambda: self._inner.invalidate(keys, tags, events))

    def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        self._carry("clear", lambda: self._inner.clear(events))
