"""Keeps the marks in Redis true: makes an epoch ready, and takes dead marks away.

An epoch begins when the marks are not there: at the first strict read, or because Redis has lost
them. Then a transaction may be about to commit whose mark was lost; nothing is leased until every
transaction that had begun by then is over (the *horizon*).

A mark outlives the process that made it. One that is old is asked about: an aborted transaction
has changed nothing, a committed one is carried out here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Protocol

from tiercache._redis.strict import Mark
from tiercache.callers import Caller
from tiercache.errors import TierError
from tiercache.invalidation import Change, Invalidation
from tiercache.strict.databases import Database, Databases
from tiercache.tiers.strict import GuardedMarks

logger = logging.getLogger("tiercache")

DEAD_AFTER: Final = 1.0
"""Seconds after which a mark is asked about."""

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at the marks, for as long as the epoch is ready."""

MOMENT: Final = 0.25
"""Seconds that a read waits for the epoch to be made ready."""

PAUSES: Final = (0.002, 0.005, 0.01, 0.02)
"""Seconds between the attempts of such a read: most transactions are over soon."""

HURRY: Final = 0.05
"""Seconds between two looks while it is not."""


class Spawner(Protocol):
    """The cache's own loop."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> object:
        """Run it in the background."""
        ...


class Upkeep:
    """What one process does for the marks of its cache."""

    def __init__(
        self,
        marks: GuardedMarks,
        databases: Databases,
        invalidation: Invalidation,
        portal: Spawner,
        caller: Caller,
    ) -> None:
        self._marks = marks
        self._databases = databases
        self._invalidation = invalidation
        self._portal = portal
        self._caller = caller
        self._lock = threading.Lock()
        self._attempt: Future[bool] | None = None
        self._begun = False
        self._again = 0.0
        self._epoch = b""
        self._horizons: dict[Database, int] = {}
        self._complained: set[str] = set()

    def begin(self) -> None:
        """Look after the marks from now on, in the background."""
        if not self._begun:
            self._begun = True
            self._portal.spawn(self._run)

    @property
    def ready(self) -> bool:
        """Whether strict reads may lease, as far as is known."""
        return self._marks.ready

    async def prepare(self) -> None:
        """Make the epoch ready, if that takes no longer than a moment, and keep it so.

        Where it takes longer, reads go round Redis and do not wait for it again and again.
        """
        self.begin()
        now = time.monotonic()
        if now < self._again:
            return
        try:
            async with asyncio.timeout(MOMENT):
                for pause in PAUSES:
                    if await self.establish():
                        return
                    await asyncio.sleep(pause)
        except TimeoutError:
            pass
        self._again = now + LOOK_EVERY

    async def establish(self) -> bool:
        """Make the epoch ready if that can be, once for all who come at the same moment."""
        if self._marks.ready:
            return True
        with self._lock:
            under_way = self._attempt
            if under_way is None:
                attempt = self._attempt = Future[bool]()
        if under_way is not None:
            return await asyncio.shield(asyncio.wrap_future(under_way))
        ready = False
        try:
            ready = await self._establish()
        except TierError:
            pass
        except Exception as error:  # noqa: BLE001 - what a driver may raise; it is tried again
            self._complain("horizon", "the cache goes round Redis for strict keys: %s", error)
        finally:
            with self._lock:
                self._attempt = None
            attempt.set_result(ready)
        return ready

    async def _establish(self) -> bool:
        founded = await self._marks.found()
        if founded.ready:
            return True
        if founded.epoch != self._epoch:
            self._epoch, self._horizons = founded.epoch, {}
        if founded.relied:  # somebody may commit, for so long, who knows of no epoch
            return False
        for database in self._databases.all():
            if database not in self._horizons:
                self._horizons[database] = await database.horizon()
            if await database.oldest() < self._horizons[database]:
                return False
        return (await self._marks.found(ready=founded.epoch)).ready

    async def _run(self) -> None:
        waited_for = True
        while True:
            pause = HURRY if waited_for else LOOK_EVERY
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - not all at once
            if self._marks.answers:
                waited_for = await self.look()

    async def look(self, dead_after: float = DEAD_AFTER) -> bool:
        """Look at the marks once; ask about those that are older than so many seconds.

        Return whether there is an epoch that is not ready yet.
        """
        try:
            seen = await self._marks.marks(dead_after)
        except TierError:
            return False
        waited_for = seen.ready is False and not await self.establish()
        for mark in seen.old:
            try:
                await self._resolve(mark)
            except TierError:
                break
            except Exception as error:  # noqa: BLE001 - what a driver may raise; it is tried again
                self._complain(
                    mark.owner, "what became of a transaction is not known yet: %s", error
                )
        return waited_for

    async def _resolve(self, mark: Mark) -> None:
        """Ask what became of the transaction, and do what it would have done."""
        database = await self._databases.named(mark.database)
        if database is None:
            self._complain(
                mark.database,
                "a transaction of %s has left marks behind, and this process does not know that "
                "database; until one does, strict keys that it marked are not cached. Give its "
                "pool to the cache: DatabaseTier(pool) or Cache(outbox=pool)",
                mark.database,
            )
            return
        fate = await database.fate(mark.number)
        if fate == "open":
            return
        if fate != "aborted":
            keys, tags, everything = mark.names
            change = Change(keys, tags, everything, origin="outbox")
            if not await self._invalidation.run(change, self._caller):
                return
        await self._marks.unmark(mark, delete=fate != "aborted")

    def _complain(self, about: str, message: str, *facts: object) -> None:
        """Log it once."""
        if about not in self._complained and len(self._complained) < _COMPLAINTS:
            self._complained.add(about)
            logger.warning(message, *facts)


_COMPLAINTS = 100
