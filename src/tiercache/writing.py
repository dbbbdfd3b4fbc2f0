"""What changes the cache on purpose: set, invalidate, clear and emit.

Inside a poolkit transaction of the calling task all four wait for its commit.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiercache._clock import Clock
from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.codec import Sealer
from tiercache.entry import FOREVER, Entry
from tiercache.errors import TierError
from tiercache.invalidation import Change, Invalidation
from tiercache.loading import Loading
from tiercache.local import Local
from tiercache.outbox import Outbox
from tiercache.policy import CachePolicy
from tiercache.tiers.base import Put
from tiercache.tiers.guarded import GuardedTier


class Writing:
    """The writes of one cache."""

    def __init__(
        self,
        *,
        local: Local,
        tiers: Sequence[GuardedTier],
        sealer: Sealer,
        loading: Loading,
        invalidation: Invalidation,
        outbox: Outbox,
        recovery: Recovery,
        clock: Clock,
        at_commit: Caller,
    ) -> None:
        self._local = local
        self._tiers = tuple(tiers)
        self._sealer = sealer
        self._loading = loading
        self._invalidation = invalidation
        self._outbox = outbox
        self._recovery = recovery
        self._clock = clock
        self._at_commit = at_commit

    async def put(
        self,
        items: Mapping[str, object],
        tags: tuple[str, ...],
        policy: CachePolicy,
        caller: Caller,
    ) -> None:
        """Store values in every tier, replacing what is there, and empty the keys in other L1s."""
        times = policy.times(self._clock.time(), random.random())  # noqa: S311 - jitter
        entries = {
            key: Entry(value, times.created, times.expires, times.stale_until, tags)
            for key, value in items.items()
        }
        sealed: dict[str, bytes] = {}
        if self._tiers:  # refused here, where the caller hears it, rather than at the commit
            sealed = {
                key: self._sealer.seal(key, entry, type_of(entry.value))
                for key, entry in entries.items()
            }
        keys = tuple(entries)

        async def act(by: Caller) -> None:
            await by.shielded(lambda: self._put(entries, sealed, policy, by))

        if not self._deferred(act, Change(keys)):
            await act(caller)

    async def _put(
        self,
        entries: Mapping[str, Entry],
        sealed: Mapping[str, bytes],
        policy: CachePolicy,
        caller: Caller,
    ) -> None:
        now, started = self._clock.time(), self._clock.monotonic()
        failed = False
        for tier in reversed(self._tiers):
            puts = []
            for key, entry in entries.items():
                forever = entry.stale_until == FOREVER
                ttl = None if forever else max(entry.stale_until - now, 0.001)
                puts.append(Put(key, entry.tags, sealed[key], ttl))
            try:
                await caller.ask(tier, "put", puts)
            except TierError:
                failed = True
        if failed:  # a tier may still hold the old value: go round it until it was invalidated
            with self._local.lock:
                self._recovery.add(entries, ())
        for key, entry in entries.items():
            self._local.replace(self._loading.slot(key, entry, policy, started=started))
        await self._invalidation.tell(tuple(entries), caller, complete=not failed)

    async def invalidate(self, keys: Sequence[str], tags: Sequence[str], caller: Caller) -> bool:
        """Invalidate now, or with the commit (then True: it has been taken)."""
        change = Change(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(tags)))
        return await self._change(change, caller)

    async def clear(self, caller: Caller) -> bool:
        """Invalidate everything."""
        return await self._change(Change(everything=True), caller)

    async def emit(
        self, change: Change, deliver: Callable[[Caller], Awaitable[None]], caller: Caller
    ) -> bool:
        """Invalidate what the event's rules name, tell the others, deliver it here."""
        return await self._change(change, caller, deliver)

    async def _change(
        self,
        change: Change,
        caller: Caller,
        after: Callable[[Caller], Awaitable[None]] | None = None,
    ) -> bool:
        async def act(by: Caller, change: Change) -> bool:
            complete = await self._invalidation.run(change, by)
            if after is not None:
                await after(by)
            return complete

        at_commit = replace(change, origin="outbox")
        if self._deferred(lambda by: act(by, at_commit), change):
            return True
        return await act(caller, change)

    def _deferred(self, act: Callable[[Caller], Awaitable[object]], change: Change) -> bool:
        transaction = self._outbox.transaction()
        if transaction is None:
            return False
        # The hook runs in a task, whoever asked for it.
        self._outbox.collect(transaction, lambda: act(self._at_commit), change)
        return True


def type_of(value: object) -> Any:
    """Return what a value that was set without an annotation is stored as.

    Builtins describe themselves; an instance of another class (a dataclass, an enum) is stored
    as that class and read back with ``type=``.
    """
    return Any if type(value).__module__ in _PLAIN else type(value)


_PLAIN = frozenset({"builtins", "datetime", "decimal", "uuid"})
