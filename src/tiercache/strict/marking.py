"""What a transaction does, before it commits, for those who read strictly.

A cache is *strict* in a process when its policy is, when one of its functions or calls is, or when
another process is found to read strictly under its name. Then all that a transaction invalidates is
marked, for nobody can tell from a tag who reads it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from tiercache._clock import Clock
from tiercache._redis.strict import Mark, Marked
from tiercache.entry import FOREVER
from tiercache.errors import PolicyError, TierError
from tiercache.invalidation import Change
from tiercache.strict.databases import Databases
from tiercache.strict.upkeep import Upkeep
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.strict import GuardedMarks, StrictDatabase
from tiercache.tiers.strict.redis import RELIANCE

if TYPE_CHECKING:
    from poolkit import Transaction

logger = logging.getLogger("tiercache")


class Marking(Protocol):
    """What transactions do, in Redis or in the database itself."""

    known: bool
    """Whether somebody reads strictly, as far as this process knows."""

    async def seal(self, transaction: Transaction, changes: Sequence[Change]) -> None:
        """Prepare a transaction for its commit; what this raises rolls it back."""
        ...


class RedisMarking:
    """Marks in Redis, taken away after the end of the transaction.

    Where nobody is known to read strictly, Redis is asked, at most once in `RELIANCE` seconds; it
    makes whoever begins to do so wait for those who were told that there is nobody.
    """

    def __init__(
        self, marks: GuardedMarks, databases: Databases, upkeep: Upkeep, clock: Clock
    ) -> None:
        self._marks = marks
        self._databases = databases
        self._upkeep = upkeep
        self._clock = clock
        self._rely_until = -FOREVER
        self.known = False

    async def seal(self, transaction: Transaction, changes: Sequence[Change]) -> None:
        """Mark what the transaction is about to invalidate; `TierError` if that cannot be done."""
        names = _names(changes)
        if names is None or transaction.readonly or not await self._is_known():
            return
        self._upkeep.begin()
        try:
            mark = await self._mark(transaction, Marked(*names))
            standing = Standing(self._marks, self._upkeep, mark)
            # Before it is sent: where the answer is lost, the mark may stand.
            transaction.on_rollback(standing.undo, retried=True)
            transaction.on_commit(standing.commit)
            await self._marks.mark(mark)
        except (TierError, OSError) as error:
            raise _unmarked(error) from error

    async def _is_known(self) -> bool:
        now = self._clock.monotonic()
        if not self.known and now >= self._rely_until and self._marks.answers:
            try:
                self.known = await self._marks.in_use()
            except TierError:
                return False
            self._rely_until = now + RELIANCE
        return self.known

    async def _mark(self, transaction: Transaction, names: Marked) -> Mark:
        database = self._databases.of(transaction)
        number = await database.number(transaction)
        return Mark(secrets.token_hex(16), names, await database.identity(), number)


class Standing:
    """One mark, until it is taken away."""

    __slots__ = ("_mark", "_marks", "_upkeep")

    def __init__(self, marks: GuardedMarks, upkeep: Upkeep, mark: Mark) -> None:
        self._marks = marks
        self._upkeep = upkeep
        self._mark = mark

    async def commit(self) -> None:
        """Take it away together with what it marks."""
        await self._remove(delete=True)

    async def undo(self) -> None:
        """Take it away alone: nothing has changed."""
        await self._remove(delete=False)

    async def _remove(self, *, delete: bool) -> None:
        try:
            await self._marks.unmark(self._mark, delete=delete)
        except TierError as error:
            # Readers go round it until somebody has asked what became of the transaction.
            logger.info("the mark of a transaction was not taken away: %s", error)
            self._upkeep.begin()


class DatabaseMarking:
    """New tokens in the tables of the tier, as part of the transaction.

    In the process of a strict reader, `prepare` leaves word in the database, for the writers that
    have no such function.
    """

    def __init__(self, database: StrictDatabase, beside: GuardedTier, clock: Clock) -> None:
        self._database = database
        self._beside = beside
        self._clock = clock
        self._rely_until = -FOREVER
        self.known = False
        self.ready = False

    async def prepare(self) -> None:
        """Say in the database that somebody reads strictly."""
        try:
            await self._beside.guard.carry("mark", self._database.take_into_use)
            self.ready = True
        except TierError as error:
            logger.info("it is not known to others that there are strict readers: %s", error)

    async def seal(self, transaction: Transaction, changes: Sequence[Change]) -> None:
        """Replace the tokens of what the transaction is about to invalidate."""
        names = _names(changes)
        if names is None or transaction.readonly or not await self._is_known():
            return
        if not self._database.serves(transaction.owner):
            raise PolicyError(
                "the transaction is rolled back: without Redis, strict keys are invalidated by "
                f"transactions of the cache's own database, and pool {transaction.owner.name!r} is "
                "of another; give the pool to the tier, DatabaseTier(pool), or add a RedisTier"
            )
        keys, tags, everything = names
        try:
            statement = await self._database.renewal(keys, tags, everything=everything)
        except (TierError, OSError) as error:
            raise _unmarked(error) from error
        await transaction.execute(statement.sql, *statement.args)

    async def _is_known(self) -> bool:
        now = self._clock.monotonic()
        if not self.known and now >= self._rely_until:
            try:
                self.known = await self._beside.guard.carry("mark", self._database.in_use)
            except TierError:
                return False
            self._rely_until = now + RELIANCE
        return self.known


def _names(changes: Sequence[Change]) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """Return what the changes invalidate, each once; None for nothing."""
    keys = tuple(dict.fromkeys(key for change in changes for key in change.keys))
    tags = tuple(dict.fromkeys(tag for change in changes for tag in change.tags))
    everything = any(change.everything for change in changes)
    return (keys, tags, everything) if keys or tags or everything else None


def _unmarked(error: Exception) -> TierError:
    """Return what a transaction is rolled back with that could not be prepared."""
    known = error if isinstance(error, TierError) else None
    return TierError(
        "the transaction is rolled back: strict readers cannot be told before its commit what it "
        f"is about to change ({error})",
        tier="redis" if known is None else known.tier,
        operation="mark",
        unavailable=known is None or known.unavailable,
        skipped=known is not None and known.skipped,
    )
