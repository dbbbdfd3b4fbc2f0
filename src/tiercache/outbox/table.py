"""The outbox table of one database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from tiercache._deadline import Deadline
from tiercache._sql.names import Tables, fold
from tiercache._sql.outbox import Fate, OutboxRow, outbox_dialect
from tiercache._sql.places import Place
from tiercache._sql.program import Job, Need

if TYPE_CHECKING:
    from poolkit import Pool, Transaction

T = TypeVar("T")

_OF_THE_APPLICATION: Final = ("23", "40", "P0")
"""Classes of errors that a COMMIT has to tell of what came before: constraints, serialization,
triggers."""


class Receipt(NamedTuple):
    """Rows that a transaction wrote, or is about to write with its commit."""

    table: OutboxTable
    ids: tuple[int, ...]


class OutboxTable:
    """Where transactions of one database write down what they invalidate.

    ``pool`` is the one whose transactions are meant, and its siblings; None if no pool was given.
    ``place`` is where the rows are relayed; ``own_place`` says that nobody else closes it. Each
    operation fails after ``timeout`` seconds.
    """

    def __init__(
        self,
        pool: Pool | None,
        place: Place,
        tables: Tables,
        namespace: str,
        *,
        timeout: float,
        own_place: bool,
    ) -> None:
        self.pool: Final = pool
        self.tables: Final = tables
        self.namespace: Final = fold(namespace)
        self._place = place
        self._own_place = own_place
        self._timeout = timeout
        self._sql = outbox_dialect(place.system, tables)
        self._name: str | None = None
        self.watched = False
        """Whether triggers write into it (`Cache.watch`)."""

    def __repr__(self) -> str:
        return f"<the outbox {self.tables.outbox} on {self._place.system}>"

    @property
    def place(self) -> Place:
        """Where the rows are relayed."""
        return self._place

    def serves(self, pool: object) -> bool:
        """Whether it is in the database of this pool."""
        return self.pool is not None and getattr(pool, "driver", None) is self.pool.driver

    async def prepare(self) -> None:
        """See that the table is there."""
        if self._name is None:
            name = await self._do(Job("open", self._sql.find, Need.READ))
            if name is None:
                await self._do(Job("open", self._sql.create, Need.WRITE, atomic=True))
                name = await self._do(Job("open", self._sql.find, Need.READ))
            self._name = name

    async def prepare_for(self, transaction: Transaction) -> None:
        """See that the table is there, from within a transaction of the application."""
        if self._name is None and self._place.system == "sqlite":
            # The transaction has the right to write: nobody else could make the table now.
            for sql in self._sql.schema():
                await transaction.execute(sql)
        else:
            await self.prepare()

    async def insert(
        self, transaction: Transaction, source: str, ids: Iterable[int], bodies: Sequence[str]
    ) -> Receipt:
        """Write rows as part of a transaction of the application; `prepare_for` came before.

        On PostgreSQL they take numbers of ``ids`` and travel together with COMMIT.
        """
        name = self._name or self.tables.outbox
        numbered = [OutboxRow(id, body) for body, id in zip(bodies, ids, strict=False)]
        riding = self._sql.riding(name, self.namespace, source, numbered)
        if riding is not None:
            transaction.send_with_commit(riding, refused=self._refused)
            return Receipt(self, tuple(row.id for row in numbered))
        statement = self._sql.insert(name, self.namespace, source, bodies)
        try:
            rows = await transaction.fetch(statement.sql, *statement.args)
        except Exception as error:
            self._refused(error)
            raise
        return Receipt(self, tuple(row[0] for row in rows))

    def _refused(self, error: Exception) -> None:
        """Look for the table again, and say what was tried, unless the error is of other things."""
        self._name = None
        if not str(getattr(error, "sqlstate", "")).startswith(_OF_THE_APPLICATION):
            error.add_note(
                f"It was to write an invalidation into {self!r}, which is part of the transaction; "
                "Cache(outbox=None) would do without it."
            )

    async def keep(self, source: str, bodies: Sequence[str]) -> None:
        """Write rows in a transaction of their own."""
        await self.prepare()
        name = self._name or self.tables.outbox
        await self._do(
            Job("keep", lambda: self._sql.keep(name, self.namespace, source, bodies), Need.DURABLE)
        )

    async def take(self, source: str, after: float, limit: int) -> list[OutboxRow]:
        """Take rows that nobody works on: written by a trigger, or ``after`` seconds ago."""
        await self.prepare()
        namespace = self.namespace
        if not await self._do(Job("relay", lambda: self._sql.waiting(namespace, after), Need.READ)):
            return []
        return await self._do(
            Job("relay", lambda: self._sql.take(namespace, source, after, limit), Need.WRITE)
        )

    async def delete(self, ids: Sequence[int]) -> None:
        """Delete rows that have been carried out."""
        await self._do(Job("relay", lambda: self._sql.delete(ids), Need.WRITE))

    async def fate(self, source: str, receipt: Receipt) -> Fate:
        """Return what became of the transaction that wrote these rows.

        One that cannot be found will never commit from now on (PostgreSQL).
        """
        namespace, ids = self.namespace, receipt.ids
        return await self._do(
            Job("relay", lambda: self._sql.fate(namespace, source, ids), self._sql.asking)
        )

    def forget(self) -> None:
        """Look for the table again: it may have been dropped."""
        self._name = None

    async def aclose(self) -> None:
        """Close the connections; a later use opens new ones."""
        if self._own_place:
            await self._place.aclose()

    async def _do(self, job: Job[T]) -> T:
        async with Deadline(self._timeout):
            return await self._place.run(job)
