"""What a transaction invalidates, sets and emits, gathered until it ends.

A savepoint that is rolled back takes its part away. Right before the commit the rest is written
into the outbox, in one statement of the same transaction; the commit hook carries it out, before
the ``async with`` block returns. Until then this task reads around the cache for what it has
invalidated, and a load that it starts stays its own (`Engine`).
"""

from __future__ import annotations

import itertools
import logging
import secrets
import sys
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

from tiercache.invalidation import Change
from tiercache.local import Local
from tiercache.outbox import letters
from tiercache.outbox.table import OutboxTable, Receipt

if TYPE_CHECKING:
    from poolkit import Transaction
    from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")


class Deed:
    """One thing that a transaction asked of the cache.

    Where invalidating ``change`` is not all there is to it, ``act(known)`` does it, after a commit
    (``known``) or one of unknown outcome, and returns whether it reached all; ``prepare()`` comes
    right before the commit, ``undo()`` after a rollback.
    """

    __slots__ = ("act", "change", "prepare", "undo")

    def __init__(
        self,
        change: Change,
        act: Callable[[bool], Awaitable[bool]] | None = None,
        *,
        prepare: Callable[[], Awaitable[None]] | None = None,
        undo: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.change = change
        self.act = act
        self.prepare = prepare
        self.undo = undo


class Scope:
    """What one open transaction has invalidated so far, for one cache."""

    __slots__ = ("everything", "keys", "tags")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.tags: set[str] = set()
        self.everything = False

    def add(self, change: Change) -> None:
        """Hide what the change names."""
        self.keys.update(change.keys)
        self.tags.update(change.tags)
        self.everything = self.everything or change.everything

    def hides(self, key: str, tags: tuple[str, ...] | None) -> bool:
        """Whether the transaction must not see what the cache holds of this key."""
        if self.everything or key in self.keys:
            return True
        return bool(self.tags) if tags is None else not self.tags.isdisjoint(tags)


class Ride:
    """What one transaction takes to its commit."""

    __slots__ = ("closed", "deeds", "receipt", "written")

    def __init__(self) -> None:
        self.deeds: list[Deed] = []
        """Those whose savepoint was not rolled back; filled right before the commit."""
        self.closed = False
        self.written = 0
        self.receipt: Receipt | None = None


class Carrier(Protocol):
    """Who carries out what has committed."""

    async def carry(self, deeds: Sequence[Deed], receipt: Receipt | None, *, known: bool) -> None:
        """Carry out the deeds; ``known`` is False when nobody knows whether it has committed."""
        ...


class Outbox:
    """The transactions that this cache's callers have open.

    ``tables`` may grow. ``needed`` says whether anybody but this process could miss what it does
    not get to do.
    """

    def __init__(
        self,
        local: Local,
        tables: Sequence[OutboxTable],
        source: str,
        carrier: Carrier,
        *,
        needed: bool,
    ) -> None:
        self._local = local
        self._tables = tables
        self._source = source
        self._carrier = carrier
        self._needed = needed
        self._scopes: WeakKeyDictionary[Transaction, Scope] = WeakKeyDictionary()
        self._rides: WeakKeyDictionary[Transaction, Ride] = WeakKeyDictionary()
        self._ids = itertools.count((1 << 62) + secrets.randbits(61))
        """Numbers of rows, that no other process and no sequence gives."""
        self._warned: set[str] = set()
        self.sealing: Callable[[Transaction, Sequence[Change]], Awaitable[None]] | None = None
        """Called at the very end before each commit, with what the transaction invalidates."""

    def transaction(self) -> Transaction | None:
        """Return the innermost transaction that the calling task has open, on any pool."""
        poolkit = sys.modules.get("poolkit")  # nobody can have opened one who has not imported it
        return None if poolkit is None else poolkit.current_transaction()

    def scope(self, transaction: Transaction) -> Scope | None:
        """Return what the transaction has invalidated, its savepoints included."""
        return self._scopes.get(_outermost(transaction))

    def bars(self, transaction: Transaction, tier: GuardedTier) -> bool:
        """Whether the transaction keeps the tier from being written: SQLite has one writer."""
        shares = getattr(tier.tier, "shares_writer", None)
        return shares is not None and bool(shares(transaction.owner))

    def collect(self, transaction: Transaction, deed: Deed) -> None:
        """Carry out the deed when the transaction may have committed."""
        outermost = _outermost(transaction)
        scope = self._scopes.get(outermost)
        if scope is None:
            scope = self._scopes[outermost] = Scope()
            self._hold(outermost)
        scope.add(deed.change)
        root = transaction.root
        ride = self._rides.get(root)
        if ride is None:
            ride = self._rides[root] = self._begin(root)
        transaction.before_commit(lambda: self._board(root, ride, deed))

    def _begin(self, root: Transaction) -> Ride:
        ride = Ride()

        async def carry() -> None:
            if ride.deeds:
                known = root.state.name != "UNKNOWN"
                await self._carrier.carry(ride.deeds, ride.receipt, known=known)

        async def undo() -> None:
            for deed in ride.deeds:
                if deed.undo is not None:
                    await deed.undo()

        root.on_commit(carry, unknown=True)
        root.on_rollback(undo, retried=True)
        return ride

    def _board(self, root: Transaction, ride: Ride, deed: Deed) -> None:
        """Take a deed along that has made it to the commit; behind the last one, close."""
        ride.deeds.append(deed)
        if not ride.closed:
            ride.closed = True
            root.before_commit(lambda: self._close(root, ride))

    async def _close(self, root: Transaction, ride: Ride) -> None:
        ride.closed = False  # a hook that comes after this one may add to it
        deeds = ride.deeds[ride.written :]
        for deed in deeds:
            if deed.prepare is not None:
                await deed.prepare()
        changes = [deed.change for deed in deeds]
        await self._write(root, ride, changes)
        ride.written = len(ride.deeds)
        if self.sealing is not None:
            await self.sealing(root, changes)

    async def _write(self, root: Transaction, ride: Ride, changes: Sequence[Change]) -> None:
        """Write it into the outbox of the transaction's database, if that has one."""
        if not self._needed:
            return
        table = next((each for each in self._tables if each.serves(root.owner)), None)
        if table is None or root.readonly:
            self._warn(root.owner.name, "the cache was not given that pool")
            return
        plain = letters.merged(changes)
        bodies = [] if plain is None else [letters.write(plain)]
        bodies += [letters.write(change) for change in changes if change.name is not None]
        try:
            await table.prepare_for(root)
        except Exception as error:  # noqa: BLE001 - the transaction is none the worse for it
            self._warn(root.owner.name, str(error))
            return
        receipt = await table.insert(root, self._source, self._ids, bodies)
        before = () if ride.receipt is None else ride.receipt.ids
        ride.receipt = receipt._replace(ids=(*before, *receipt.ids))

    def _warn(self, pool: str, why: str) -> None:
        if pool not in self._warned:
            self._warned.add(pool)
            logger.warning(
                "what transactions of pool %r invalidate is not written into an outbox, so it is "
                "lost if this process dies between a commit and the invalidation: %s; give the "
                "pool to the cache, as DatabaseTier(pool) or Cache(outbox=pool)",
                pool,
                why,
            )

    def _hold(self, outermost: Transaction) -> None:
        # Registered before the deeds of this cache: the hot path may answer again before they are
        # carried out, for until the block returns nobody can tell.
        with self._local.lock:
            self._local.gate.hold()
        over = weakref.finalize(outermost, _let_go, self._local)  # also if its hooks are never run
        over.atexit = False

        outermost.on_commit(over, unknown=True)
        outermost.on_rollback(over, retried=True)


def _let_go(local: Local) -> None:
    with local.lock:
        local.gate.let_go()


def _outermost(transaction: Transaction) -> Transaction:
    while (outer := transaction.outer) is not None:
        transaction = outer
    return transaction
