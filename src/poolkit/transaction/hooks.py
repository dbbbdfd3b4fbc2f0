"""What is to be called when a transaction ends, and which of it is owed to which end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Literal

from poolkit.transaction.passengers import Passengers

logger = logging.getLogger("poolkit")

Hook = Callable[[], object]
"""A function without arguments; what it returns is awaited if it can be."""


class Hooks:
    """The hooks of one transaction, or of one savepoint until that is released."""

    __slots__ = ("along", "before", "committed", "rolled_back")

    def __init__(self) -> None:
        self.before: list[Hook] = []
        self.along = Passengers()
        self.committed: list[tuple[Hook, bool]] = []
        """Each with whether it is also owed to an unknown end."""
        self.rolled_back: list[tuple[Hook, bool]] = []
        """Each with whether it is also owed to an end after which all is run again."""

    def take_over(self, released: Hooks) -> None:
        """Add those of a savepoint that was released."""
        self.before += released.before
        self.along.take_over(released.along)
        self.committed += released.committed
        self.rolled_back += released.rolled_back

    def owed(self, outcome: Literal["commit", "rollback", "retry", "unknown"]) -> list[Hook]:
        """Return what to call after the end; a retry is a rollback after which all is run again."""
        if outcome in ("rollback", "retry"):
            return [hook for hook, retried in self.rolled_back if retried or outcome == "rollback"]
        return [hook for hook, unknown in self.committed if unknown or outcome == "commit"]

    async def run_before(self) -> None:
        """Call what comes before the commit, also what is registered meanwhile."""
        done = 0
        while done < len(self.before):
            result = self.before[done]()
            done += 1
            if isawaitable(result):
                await result


async def run_hooks(hooks: Sequence[Hook], pool: str) -> None:
    """Call all of them in order; one that fails is logged and stops nothing."""
    for hook in hooks:
        try:
            result = hook()
            if isawaitable(result):
                await result
        except Exception:
            logger.exception("pool %r: a transaction hook failed: %r", pool, hook)
