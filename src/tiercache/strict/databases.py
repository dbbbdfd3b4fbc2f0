"""The databases whose transactions mark, and what can be asked of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from tiercache._sql.places import Place, place_of
from tiercache._sql.program import Job, Need, Program
from tiercache._sql.standing import Fate, PostgresStanding, SqliteStanding, Standing

if TYPE_CHECKING:
    from poolkit import Pool, Transaction

T = TypeVar("T")

TIMEOUT: Final = 1.0
"""Seconds for one question."""


class Given(Protocol):
    """What the cache was given that is in a database: a tier, an outbox."""

    @property
    def pool(self) -> Pool | None:
        """The pool that was handed in; None where that was a URL."""
        ...

    @property
    def place(self) -> Place:
        """Where to ask."""
        ...


class Database:
    """One of them. Every question fails after `TIMEOUT`, with whatever the driver raises."""

    def __init__(self, place: Place, *, own: bool) -> None:
        self._place = place
        self._own = own
        self._standing: Standing = (
            PostgresStanding() if place.system == "postgresql" else SqliteStanding()
        )
        self._identity: str | None = None

    async def identity(self) -> str:
        """Return what it is called in every process."""
        if self._identity is None:
            self._identity = await self._ask(self._standing.identity, Need.READ)
        return self._identity

    async def number(self, transaction: Transaction) -> str | None:
        """Return the number of a transaction, which gets one by this if it has none."""
        statement = self._standing.number
        if statement is None:
            return None
        return str(await transaction.fetchval(statement.sql, *statement.args))

    async def horizon(self) -> int:
        """Return a number beyond those of all transactions that have one."""
        return await self._ask(self._standing.horizon, Need.WRITE)

    async def oldest(self) -> int:
        """Return a number below which all transactions are over."""
        return await self._ask(self._standing.oldest, Need.WRITE)

    async def fate(self, number: str | None) -> Fate:
        """Return what became of the transaction with that number."""
        return await self._ask(lambda: self._standing.fate(number), Need.WRITE)

    async def aclose(self) -> None:
        """Close the connections that were opened for this."""
        if self._own:
            await self._place.aclose()

    async def _ask(self, make: Callable[[], Program[T]], need: Need) -> T:
        # In SQLite the right to write is the answer: a transaction, which takes it.
        atomic = need is Need.WRITE and self._place.system == "sqlite"
        async with asyncio.timeout(TIMEOUT):
            return await self._place.run(Job("strict", make, need, atomic=atomic))


class Databases:
    """Those that the cache was given, and those whose transactions it has met."""

    def __init__(self, tiers: Sequence[Any], outboxes: Sequence[Given]) -> None:
        self._tiers = [tier for tier in tiers if tier.kind == "database"]
        self._outboxes = outboxes  # which may grow
        self._known: dict[int, Database] = {}
        self._places: dict[int, Place] = {}
        self._met: dict[object, Database] = {}
        self._lock = threading.Lock()

    def all(self) -> list[Database]:
        """Return every database that is known."""
        with self._lock:
            own = [self._of(given.place) for given in self._given()]
            return list(dict.fromkeys((*own, *self._met.values())))

    def of(self, transaction: Transaction) -> Database:
        """Return the database of a transaction."""
        pool = transaction.owner
        driver = getattr(pool, "driver", None)
        with self._lock:
            for given in self._given():
                if given.pool is not None and given.pool.driver is driver:
                    return self._of(given.place)
            met = self._met.get(driver)
            if met is None:
                place = place_of(pool, TIMEOUT, 1)  # type: ignore[arg-type]  # whose else
                met = self._met[driver] = Database(place, own=True)
            return met

    async def named(self, identity: str) -> Database | None:
        """Return the database of that name, if this process knows it."""
        for database in self.all():
            if await database.identity() == identity:
                return database
        return None

    async def aclose(self) -> None:
        """Close what was opened."""
        for database in self.all():
            await database.aclose()

    def _given(self) -> Iterator[Given]:
        for tier in self._tiers:
            if hasattr(tier, "place"):
                yield tier
        yield from self._outboxes

    def _of(self, place: Place) -> Database:
        self._places[id(place)] = place  # so that no other takes its number
        return self._known.setdefault(id(place), Database(place, own=False))
