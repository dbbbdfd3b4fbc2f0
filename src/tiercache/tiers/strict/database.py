"""A database as strict readers see it: transactions of the same database replace its tokens.

Every entry of a strict reader carries one more tag, which stands for its key alone. A transaction
gives that tag, and those it invalidates, new tokens before it commits. So there is no moment in
which the commit can be seen and the old entry is readable, and nothing to be marked.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tiercache._sql import renewal
from tiercache._sql.names import RUN, fold
from tiercache._sql.program import Job, Need, Statement
from tiercache.tiers.base import Ask, Basis, Blocking, Fill, Filled, Kind, Leased, Stored
from tiercache.tiers.strict.sight import Sight

if TYPE_CHECKING:
    from tiercache.tiers.database import DatabaseTier


def own_tag(key: str) -> str:
    """Return the tag that stands for a key alone; no tag of an application has this name."""
    return f"\0key:{key}"


class StrictDatabase:
    """A `StrictTier` upon the entries of a `DatabaseTier`."""

    def __init__(self, tier: DatabaseTier, namespace: str) -> None:
        self._tier = tier
        self._namespace = fold(namespace)
        self._table: str | None = None

    @property
    def kind(self) -> Kind:
        """``database``."""
        return "database"

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self._tier.timeout

    @property
    def blocking(self) -> Blocking | None:
        """None: calls from threads go by way of the cache's own loop."""
        return None

    def bind(self, namespace: str) -> None:
        """Do nothing: the tier below is bound."""

    async def open(self) -> None:
        """Open the tier below."""
        await self._tier.open()

    async def ping(self) -> None:
        """Answer, or raise `TierError`."""
        await self._tier.ping()

    async def prune(self, limit: int) -> int:
        """Return 0: the tier below is pruned by itself."""
        return 0

    async def aclose(self) -> None:
        """Do nothing: the connections are those of the tier below."""

    async def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`, of entries of strict readers alone."""
        found = await self._tier.read([_own(ask) for ask in asks])
        return [
            stored if stored is not None and _is_strict(ask.key, stored.basis) else None
            for ask, stored in zip(asks, found, strict=True)
        ]

    async def look(self, asks: Sequence[Ask]) -> list[Sight]:
        """Read: nothing is ever marked here."""
        return [Sight(stored) for stored in await self.read(asks)]

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        return await self._tier.lease([_own(ask) for ask in asks], ttl, patient)

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        return await self._tier.renew(bases, ttl)

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return await self._tier.release(bases)

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        return await self._tier.fill(fills)

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        await self._tier.invalidate(keys, tags, events)

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        await self._tier.clear(events)

    # -- transactions -------------------------------------------------------------------------

    def serves(self, pool: object) -> bool:
        """Whether transactions of this pool can write into the tier's tables."""
        driver = getattr(pool, "driver", None)
        own = self._tier.pool
        return (own is not None and driver is own.driver) or (
            driver is not None and self._tier.address == (driver.system, driver.address)
        )

    async def in_use(self) -> bool:
        """Return whether somebody reads strictly."""
        table = await self._tag_table()
        namespace = self._namespace
        job = Job("read", lambda: renewal.in_use(table, namespace), Need.READ)
        return await self._tier.place.run(job)

    async def take_into_use(self) -> None:
        """Say that somebody does, for good."""
        statement = await self._renewed([renewal.IN_USE])
        job = Job("mark", lambda: renewal.run(statement), Need.DURABLE)
        await self._tier.place.run(job)

    async def renewal(
        self, keys: Sequence[str], tags: Sequence[str], *, everything: bool
    ) -> Statement:
        """Return the statement for a transaction that invalidates these."""
        names = [*map(fold, tags), *(fold(own_tag(key)) for key in keys), *[RUN] * everything]
        return await self._renewed(names)

    async def _renewed(self, names: Sequence[str]) -> Statement:
        table = await self._tag_table()
        tokens = {name: secrets.token_hex(16) for name in sorted(set(names))}
        return renewal.renew(self._tier.place.system, table, self._namespace, tokens)

    async def _tag_table(self) -> str:
        if self._table is None:
            await self._tier.open()
            place, tables = self._tier.place, self._tier.tables
            job = Job("open", lambda: renewal.table(place.system, tables), Need.READ)
            self._table = await place.run(job)
        return self._table


def _own(ask: Ask) -> Ask:
    return ask if ask.tags is None else ask._replace(tags=(*ask.tags, own_tag(ask.key)))


def _is_strict(key: str, basis: Basis) -> bool:
    return any(tag == own_tag(key) for tag, _ in basis.tags)
