"""The slow path of strict keys: `Loading` on a strict tier alone, nothing of it in L1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tiercache._flight import Flight, Load
from tiercache.callers import Caller
from tiercache.entry import Entry
from tiercache.loading import Call, Item, Loader, Loading
from tiercache.local import Local
from tiercache.telemetry.observer import Lookup, Reason
from tiercache.tiers.base import Stored
from tiercache.tiers.strict import GuardedStrict


class Shared:
    """A strict load that others may join, until its fill is on its way.

    ``confirmed`` says that the fill was accepted: when it arrived, nothing had been committed since
    the load began. Who had joined before it was sent may have the value; who comes later could
    have been told of a commit in between.
    """

    __slots__ = ("confirmed", "flight")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.confirmed = False


class StrictLoading(Loading):
    """Loads strict keys. ``tier`` is the only one that it asks."""

    def __init__(self, local: Local, tier: GuardedStrict, *rest: Any) -> None:
        super().__init__(local, [tier], *rest)
        self.tier = tier
        self._open: dict[str, Shared] = {}

    def share(self, call: Call) -> Shared:
        """Register a load of the call that others may join; under the cache's lock."""
        shared = self._open[call.key] = Shared(self._local.begin(call.key, call.tags))
        return shared

    def joinable(self, call: Call, caller: Caller) -> Shared | None:
        """Return the load under way that the call may join; under the cache's lock."""
        shared = self._open.get(call.key)
        if shared is None:
            return None
        flight, load = shared.flight, shared.flight.load
        if load is None or load.dead or flight.finished or not flight.fills:
            return None
        return shared if flight.tags == call.tags and caller.may_join(load) else None

    def is_open(self, shared: Shared) -> bool:
        """Whether it may still be joined; under the cache's lock."""
        return self._open.get(shared.flight.key) is shared

    def unseal(self, key: str, stored: Stored, type_: Callable[[], Any]) -> Entry | None:
        """Open what was found; None if it cannot be read or is past all its time."""
        return self.looking.unseal(self.tier, key, stored, type_)

    async def run(
        self,
        load: Load,
        items: Sequence[Item],
        loader: Loader,
        caller: Caller,
        lookup: Lookup,
        reason: Reason,
    ) -> None:
        """Carry the items in and land their flights, whatever happens."""
        try:
            await super().run(load, items, loader, caller, lookup, reason)
        finally:
            for item in items:
                self._close(item.flight)

    def fill_local(self, item: Item) -> None:
        """Leave L1 alone: nobody can say how old that is."""

    async def _fill(self, items: Sequence[Item], caller: Caller) -> None:
        """Let nobody join any more, fill, and note what was accepted."""
        shared = [self._close(item.flight) for item in items]
        tokens = [b"" if (b := item.bases.get(self.tier)) is None else b.token for item in items]
        accepted = self.tier.accepted
        with self._local.lock:
            accepted.update(dict.fromkeys(filter(None, tokens), False))
        try:
            await super()._fill(items, caller)
        finally:
            with self._local.lock:
                for each, token in zip(shared, tokens, strict=True):
                    if accepted.pop(token, False) and each is not None:
                        each.confirmed = True

    def _close(self, flight: Flight) -> Shared | None:
        with self._local.lock:
            shared = self._open.get(flight.key)
            if shared is None or shared.flight is not flight:
                return None
            return self._open.pop(flight.key)
