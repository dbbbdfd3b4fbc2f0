"""Invalidations that ride in a database transaction: they take effect if and when it commits.

What a task invalidates, sets or emits while it has a poolkit transaction open is collected with
that transaction (a savepoint that is rolled back drops its part) and carried out by its commit
hook, before the ``async with`` block returns. Until then this task reads around the cache for what
it has invalidated, and a load that it starts stays its own (`Engine`).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tiercache.invalidation import Change
from tiercache.local import Local

if TYPE_CHECKING:
    from poolkit import Transaction

Act = Callable[[], Awaitable[object]]


class Scope:
    """What one open transaction has invalidated so far, for one cache."""

    __slots__ = ("everything", "keys", "tags")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.tags: set[str] = set()
        self.everything = False

    def hides(self, key: str, tags: tuple[str, ...] | None) -> bool:
        """Whether the transaction must not see what the cache holds of this key."""
        if self.everything or key in self.keys:
            return True
        return bool(self.tags) if tags is None else not self.tags.isdisjoint(tags)


class Outbox:
    """The transactions that this cache's callers have open."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._scopes: WeakKeyDictionary[Transaction, Scope] = WeakKeyDictionary()

    def transaction(self) -> Transaction | None:
        """Return the innermost transaction that the calling task has open, on any pool."""
        poolkit = sys.modules.get("poolkit")  # nobody can have opened one who has not imported it
        return None if poolkit is None else poolkit.current_transaction()

    def scope(self, transaction: Transaction) -> Scope | None:
        """Return what the transaction has invalidated, its savepoints included."""
        return self._scopes.get(_outermost(transaction))

    def collect(self, transaction: Transaction, act: Act, change: Change) -> None:
        """Carry out ``act``, which makes the change, when the transaction may have committed."""
        root = _outermost(transaction)
        scope = self._scopes.get(root)
        if scope is None:
            scope = self._scopes[root] = Scope()
            self._hold(root)
        scope.keys.update(change.keys)
        scope.tags.update(change.tags)
        scope.everything = scope.everything or change.everything
        transaction.on_commit(act, unknown=True)

    def _hold(self, root: Transaction) -> None:
        # Registered before the acts of this cache: the hot path may answer again before they run,
        # for until the block returns nobody can tell.
        with self._local.lock:
            self._local.gate.hold()
        over = weakref.finalize(root, _let_go, self._local)  # also if its hooks are never run
        over.atexit = False

        root.on_commit(over, unknown=True)
        root.on_rollback(over)


def _let_go(local: Local) -> None:
    with local.lock:
        local.gate.let_go()


def _outermost(transaction: Transaction) -> Transaction:
    while (outer := transaction.outer) is not None:
        transaction = outer
    return transaction
