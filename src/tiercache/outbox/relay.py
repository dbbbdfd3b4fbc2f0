"""Carries out what has committed: at once, for this process; later, for those that could not."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from tiercache._recovery import Recovery
from tiercache.callers import Caller
from tiercache.invalidation import Change, Invalidation
from tiercache.local import Local
from tiercache.outbox import letters
from tiercache.outbox.collecting import Deed
from tiercache.outbox.table import OutboxTable, Receipt
from tiercache.tiers.gathering import Gathering
from tiercache.tiers.guarded import GuardedTier

logger = logging.getLogger("tiercache")

RELAY_AFTER: Final = 1.0
"""Seconds after which a row is taken for left behind by the process that wrote or took it."""

WATCHING: Final = 0.25
"""Seconds between two looks for rows of triggers, where no bus tells of them."""

BATCH: Final = 200
"""Rows that are taken at once."""

DELETE_AFTER: Final = 0.1
"""Seconds that rows which were carried out lie there for others to be deleted with them. Well below
`RELAY_AFTER`: until then nobody takes them for left behind."""

ASK_AGAIN: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between two questions what became of a transaction; the last one is repeated."""

LATE: Final = (1.0, 10.0)
"""Seconds after which an invalidation is repeated whose outcome nobody can ask for."""

Deliver = Callable[[Change, Caller], Coroutine[Any, Any, None]]


class Spawner(Protocol):
    """The cache's own loop."""

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run it in the background."""
        ...


class Relay:
    """The relay of one cache in one process.

    ``tables`` may grow. ``deliver`` hands an application event to the handlers of this process.
    """

    def __init__(
        self,
        *,
        tables: Sequence[OutboxTable],
        source: str,
        local: Local,
        tiers: Sequence[GuardedTier],
        invalidation: Invalidation,
        recovery: Recovery,
        deliver: Deliver,
        portal: Spawner,
        caller: Caller,
    ) -> None:
        self.tables = tables
        self._source = source
        self._local = local
        self._tiers = tuple(tiers)
        self._invalidation = invalidation
        self._recovery = recovery
        self._deliver = deliver
        self._portal = portal
        self._caller = caller
        self._passes: Gathering[Change, bool] = Gathering(self._pass)
        self._stir = asyncio.Event()
        self._done: dict[OutboxTable, list[int]] = {}
        self._complained: set[OutboxTable] = set()

    @property
    def watching(self) -> bool:
        """Whether rows of triggers are to be expected, of which not every bus tells."""
        return any(table.watched for table in self.tables)

    # -- what this process' transactions ask for ----------------------------------------------

    async def carry(self, deeds: Sequence[Deed], receipt: Receipt | None, *, known: bool) -> None:
        """Carry out the deeds of a transaction that has committed, or may have."""
        complete = True
        plain = letters.merged(deed.change for deed in deeds if deed.act is None)
        if plain is not None:
            with self._invalidation.observed(plain):
                names = len(plain.keys) + len(plain.tags) + plain.everything
                [complete] = await self._passes.ask([plain], names)
        for deed in deeds:
            if deed.act is not None:
                complete = await deed.act(known) and complete
        if not known:
            self._doubt([deed.change for deed in deeds], receipt)
        elif receipt is not None and complete:
            self._finished(receipt.table, receipt.ids)

    async def _pass(self, changes: Sequence[Change]) -> list[bool]:
        """Carry out at one go what several transactions ask for."""
        plain = letters.merged(changes)
        assert plain is not None
        complete = await self._invalidation.run_merged(plain, self._caller, len(changes))
        if complete or len(changes) == 1 or self._lacks_a_tier():
            return [complete] * len(changes)
        # Something was refused: only by itself can each find out whether it was his.
        return [await self._invalidation.run_merged(each, self._caller, 0) for each in changes]

    def _lacks_a_tier(self) -> bool:
        """Whether there is a tier that does not answer."""
        return any(tier.circuit != "closed" for tier in self._tiers)

    def _finished(self, table: OutboxTable, ids: Sequence[int]) -> None:
        """Have rows deleted that were carried out; not while somebody waits."""
        with self._local.lock:
            waiting = self._done.setdefault(table, [])
            first = not waiting
            waiting.extend(ids)
        if first:
            self._portal.spawn(lambda: self._delete(table))

    async def _delete(self, table: OutboxTable) -> None:
        """Delete what is carried out within a while, in one statement; at once when closing."""
        try:
            await asyncio.sleep(DELETE_AFTER)
        finally:
            await self._delete_now(table)

    async def _delete_now(self, table: OutboxTable) -> None:
        with self._local.lock:
            ids = self._done.pop(table, [])
        try:
            await table.delete(ids)
        except Exception as error:  # noqa: BLE001 - they are relayed once more, and deleted then
            logger.debug("rows of %r stay: %s", table, error)

    def keep(self, change: Change) -> None:
        """Write down what could not be invalidated, where a database is at hand."""
        if self.tables:
            table = self.tables[0]
            self._portal.spawn(lambda: self._keep(table, change))

    async def _keep(self, table: OutboxTable, change: Change) -> None:
        try:
            await table.keep(self._source, [letters.write(change)])
        except Exception as error:  # noqa: BLE001 - it is in memory as well
            logger.info("an invalidation is kept in memory alone: %s", error)

    # -- a commit of unknown outcome ----------------------------------------------------------

    def _doubt(self, changes: Sequence[Change], receipt: Receipt | None) -> None:
        """Go round the tiers for it until the outcome is known, then carry it out if need be.

        A COMMIT that is still on its way makes what was loaded after the first invalidation stale.
        An application event of it has been told to nobody yet.
        """
        every = letters.merged(Change(c.keys, c.tags, c.everything) for c in changes)
        if every is None:
            return
        hold = object()
        with self._local.lock:
            self._recovery.hold(hold, every)
        if receipt is None:
            for name in {change.name for change in changes} - {None}:
                logger.warning(
                    "event %r is not delivered: its commit is of unknown outcome, and no outbox "
                    "tells whether it took place",
                    name,
                )
            changes = [every]
        self._portal.spawn(lambda: self._settle(hold, changes, receipt))

    async def _settle(
        self, hold: object, changes: Sequence[Change], receipt: Receipt | None
    ) -> None:
        try:
            if receipt is None:
                for delay in LATE:
                    await asyncio.sleep(delay)
                    await self._carry_out(changes)
            elif await self._committed(receipt) and await self._carry_out(changes):
                self._finished(receipt.table, receipt.ids)
        finally:
            with self._local.lock:
                self._recovery.let_go(hold)

    async def _committed(self, receipt: Receipt) -> bool:
        """Ask what became of the transaction until somebody knows."""
        attempt = 0
        while True:
            try:
                fate = await receipt.table.fate(self._source, receipt)
            except Exception as error:  # noqa: BLE001 - the database is away, as it was before
                logger.debug("the outcome of a commit is not known yet: %s", error)
            else:
                if fate != "open":
                    return fate == "committed"
            await asyncio.sleep(ASK_AGAIN[min(attempt, len(ASK_AGAIN) - 1)])
            attempt += 1

    # -- what others left behind --------------------------------------------------------------

    def stirred(self) -> None:
        """Look now; called on the loop that runs `run`."""
        self._stir.set()

    async def run(self) -> None:
        """Relay rows until cancelled."""
        self._stir = asyncio.Event()
        while True:
            self._stir.clear()
            for table in tuple(self.tables):
                await self._relay(table)
            pause = WATCHING if self.watching else RELAY_AFTER
            try:
                async with asyncio.timeout(pause * random.uniform(0.8, 1.2)):  # noqa: S311
                    await self._stir.wait()
            except TimeoutError:
                pass

    async def _relay(self, table: OutboxTable) -> None:
        """Carry out what lies in a table, as long as all tiers answer."""
        try:
            while not self._lacks_a_tier():
                rows = await table.take(self._source, RELAY_AFTER, BATCH)
                if not rows:
                    break
                changes = [letters.read(row.body) for row in rows]
                if not await self._carry_out(changes):
                    return  # whoever reaches every tier first takes them in a while
                await table.delete([row.id for row in rows])
        except Exception as error:  # noqa: BLE001 - the next round tries again
            table.forget()
            if table not in self._complained:
                self._complained.add(table)
                logger.warning("%r is not relayed from for now: %s", table, error)
        else:
            self._complained.discard(table)

    async def _carry_out(self, changes: Sequence[Change]) -> bool:
        complete = True
        plain = letters.merged(changes)
        if plain is not None:
            complete = await self._invalidation.run(plain, self._caller)
        for change in changes:
            if change.name is not None:
                complete = await self._invalidation.run(change, self._caller) and complete
                if complete:
                    await self._deliver(change, self._caller)
        return complete
