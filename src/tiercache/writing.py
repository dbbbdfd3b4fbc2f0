"""What changes the cache on purpose: set, invalidate, clear and emit.

Inside a poolkit transaction of the calling task all four wait for its commit.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tiercache._clock import Clock
from tiercache.callers import Caller
from tiercache.codec import Sealer
from tiercache.entry import Entry
from tiercache.invalidation import Change, Invalidation
from tiercache.lease import Leases
from tiercache.loading import Loading
from tiercache.local import Local
from tiercache.outbox import Deed, Outbox
from tiercache.policy import CachePolicy
from tiercache.setting import Setting
from tiercache.tiers.guarded import GuardedTier

if TYPE_CHECKING:
    from tiercache.strict import Strict


class Writing:
    """The writes of one cache."""

    def __init__(
        self,
        *,
        local: Local,
        tiers: Sequence[GuardedTier],
        sealer: Sealer,
        loading: Loading,
        leases: Leases,
        invalidation: Invalidation,
        outbox: Outbox,
        clock: Clock,
        at_commit: Caller,
        strict: Strict | None = None,
    ) -> None:
        self._local = local
        self._tiers = tuple(tiers)
        self._sealer = sealer
        self._loading = loading
        self._leases = leases
        self._invalidation = invalidation
        self._outbox = outbox
        self._clock = clock
        self._at_commit = at_commit
        self._strict = strict

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
        tiers: Sequence[GuardedTier] = self._tiers
        if policy.strict and self._strict is not None:
            tiers = await self._strict.among(tiers, caller)
        setting = Setting(
            entries,
            sealed,
            policy,
            local=self._local,
            tiers=tiers,
            loading=self._loading,
            leases=self._leases,
            invalidation=self._invalidation,
            clock=self._clock,
        )
        transaction = self._outbox.transaction()
        if transaction is None:
            if policy.strict:  # it may be refused, and then what was there must be gone
                await self._invalidation.run(setting.change, caller)
            await caller.shielded(lambda: setting.run(caller))
            return
        by = self._at_commit  # hooks run in a task, whoever asked for it
        self._outbox.collect(
            transaction,
            Deed(
                setting.change,
                lambda known: setting.commit(known, by),
                prepare=lambda: setting.prepare(
                    by, barred=lambda tier: self._outbox.bars(transaction, tier)
                ),
                undo=lambda: setting.undo(by),
            ),
        )

    async def invalidate(self, keys: Sequence[str], tags: Sequence[str], caller: Caller) -> bool:
        """Invalidate now, or with the commit (then True: it has been taken).

        `TierError` rather than False where somebody reads strictly.
        """
        change = Change(tuple(dict.fromkeys(keys)), tuple(dict.fromkeys(tags)))
        return self._checked(await self._change(change, caller))

    async def clear(self, caller: Caller) -> bool:
        """Invalidate everything; `TierError` as from `invalidate`."""
        return self._checked(await self._change(Change(everything=True), caller))

    def _checked(self, complete: bool) -> bool:
        if not complete and self._strict is not None:
            self._strict.refuse_incomplete()
        return complete

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
        transaction = self._outbox.transaction()
        if transaction is None:
            return await self._carry_out(change, after, caller)
        change = replace(change, origin="outbox")
        if change.name is None:
            deed = Deed(change)
        else:
            deed = Deed(change, lambda known: self._happened(change, after, known=known))
        self._outbox.collect(transaction, deed)
        return True

    async def _happened(
        self,
        change: Change,
        after: Callable[[Caller], Awaitable[None]] | None,
        *,
        known: bool,
    ) -> bool:
        """Carry an event out; while its commit is in doubt, only what it invalidates.

        `Relay` carries out the rest when it turns out to have committed.
        """
        if known:
            return await self._carry_out(change, after, self._at_commit)
        rules = replace(change, name=None, payload={})
        return not rules.invalidates or await self._invalidation.run(rules, self._at_commit)

    async def _carry_out(
        self,
        change: Change,
        after: Callable[[Caller], Awaitable[None]] | None,
        caller: Caller,
    ) -> bool:
        complete = await self._invalidation.run(change, caller)
        if after is not None:
            await after(caller)
        return complete


def type_of(value: object) -> Any:
    """Return what a value that was set without an annotation is stored as.

    Builtins describe themselves; an instance of another class (a dataclass, an enum) is stored
    as that class and read back with ``type=``.
    """
    return Any if type(value).__module__ in _PLAIN else type(value)


_PLAIN = frozenset({"builtins", "datetime", "decimal", "uuid"})
