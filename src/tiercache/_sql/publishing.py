"""Writing events into a database, alone or together with the deletions they tell of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tiercache._deadline import Deadline
from tiercache._sql.events import EVENT, EventDialect
from tiercache._sql.faults import explain, tier_error
from tiercache._sql.names import Tables
from tiercache._sql.places import Place
from tiercache._sql.program import Job, Need, Program, Statement
from tiercache.errors import TierError

_ATTEMPTS: Final = 3
_BACKOFF: Final = 0.002

Announce = Callable[[Sequence[bytes]], Sequence[tuple[str, tuple[object, ...]]]]


class Carrier(Protocol):
    """A tier that runs statements of others within the transactions of its deletions."""

    def announce(self, statements: Announce | None, preparation: Job[None] | None = None) -> None:
        """Have ``statements(events)`` run with the deletions; ``preparation`` makes the table."""
        ...


class Publisher:
    """Publishes the events of one cache, from any loop; makes the table when it is missing."""

    def __init__(self, place: Place, tables: Tables, events: EventDialect, timeout: float) -> None:
        self.place: Final = place
        self._tables = tables
        self._events = events
        self._timeout = timeout

    async def publish(self, bodies: Sequence[bytes]) -> None:
        """Write encoded events; `TierError` when that fails."""
        if not bodies:
            return
        try:
            async with Deadline(self._timeout):
                for attempt in range(_ATTEMPTS):
                    try:
                        await self.place.run(self.job(bodies))
                        return
                    except Exception as error:
                        fault = explain(error, self._tables)
                        if attempt == _ATTEMPTS - 1 or not (fault.retry or fault.missing):
                            raise
                        if fault.missing:
                            await self.place.run(self.preparation())
                        await asyncio.sleep(random.random() * _BACKOFF)  # noqa: S311 - a lot
        except Exception as error:
            raise self.failure("publish", error) from error

    def job(self, bodies: Sequence[bytes], kind: str = EVENT) -> Job[None]:
        """Return what writes events: they tell of what is done, so all of them or none."""
        statements = self._events.publish(bodies, kind)
        return Job("publish", lambda: _each(statements), Need.WRITE, several=len(statements) > 1)

    def preparation(self) -> Job[None]:
        """Return what makes the table where it is missing."""
        return Job("prepare", self._events.prepare, Need.WRITE, atomic=True)

    def ride(self, carrier: Carrier) -> None:
        """Have a tier of the same database publish what it is given."""
        carrier.announce(self._events.publish, self.preparation())

    def failure(self, operation: str, error: Exception) -> TierError:
        """Say what failed, where, why, and what can be done."""
        if isinstance(error, TierError):
            return error
        return tier_error(error, self.place.system, self.place.address, self._tables, operation)

    async def aclose(self) -> None:
        """Let go of what the loops have open."""
        await self.place.aclose()


def _each(statements: Sequence[Statement]) -> Program[None]:
    for statement in statements:  # noqa: UP028 - a list cannot be sent the rows
        yield statement
