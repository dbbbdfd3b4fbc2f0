"""What the transactions of a soak said of their ends, to be held against the database."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Literal, Protocol

End = Literal["committed", "rolled_back", "unknown", "never_begun"]

HOOKS: dict[End, list[str]] = {
    "committed": ["commit", "commit or unknown"],
    "rolled_back": ["rollback"],
    "unknown": ["commit or unknown"],
    "never_begun": [],
}
"""Which hooks each end owes, in the order in which they were registered."""

_SETTLED, _CERTAIN = 2.0, 10.0
"""Seconds after which nothing of a transaction is under way in this process any more, not even its
hooks; and after which a COMMIT without an answer has arrived, or will never."""


class Record:
    """One transaction: what it wrote, how it said that it ended, which of its hooks ran."""

    __slots__ = ("at", "end", "has_hooks", "hooks", "number", "parts")

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts: set[int] = set()
        """The rows that a commit makes visible."""
        self.hooks: list[str] = []
        self.has_hooks = False
        self.end: End | None = None
        self.at = 0.0


class Witness(Protocol):
    """The database, seen past the pool."""

    async def rows(self, numbers: list[int]) -> dict[int, set[int]]:
        """Return the parts that are there of these transactions."""
        ...

    async def delete(self, numbers: list[int]) -> None:
        """Delete them."""
        ...

    async def numbers(self) -> set[int]:
        """Return all transactions that have rows."""
        ...


class Outcomes:
    """The records of one database, checked and forgotten while the soak goes on."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._ended: list[Record] = []
        self._open = 0
        self.tally: Counter[str] = Counter()
        self.violations: list[str] = []

    def begin(self) -> Record:
        """Begin a record."""
        self._open += 1
        return Record(next(self._numbers))

    def end(self, record: Record, end: End) -> None:
        """Take note of how it ended."""
        self._open -= 1
        record.end, record.at = end, asyncio.get_running_loop().time()
        self.tally[end] += 1
        self._ended.append(record)

    async def check(self, witness: Witness, *, all_of_them: bool = False) -> None:
        """Hold what has settled against the database, and forget it."""
        now = asyncio.get_running_loop().time()
        ripe: list[Record] = []
        unripe: list[Record] = []
        for record in self._ended:
            rest = _CERTAIN if record.end == "unknown" else _SETTLED
            (ripe if all_of_them or record.at + rest <= now else unripe).append(record)
        self._ended = unripe
        numbers = [record.number for record in ripe]
        found = await witness.rows(numbers)
        await witness.delete(numbers)
        for record in ripe:
            self._check(record, found.get(record.number, set()))

    def _check(self, record: Record, found: set[int]) -> None:
        assert record.end is not None
        if record.end == "committed" and found != record.parts:
            self._violated(record, f"committed {record.parts}, and {found} is there")
        if record.end in ("rolled_back", "never_begun") and found:
            self._violated(record, f"is {record.end}, and {found} is there")
        if record.end == "unknown" and found:
            self.tally["unknown, and committed"] += 1
            if found != record.parts:
                self._violated(record, f"of unknown end left {found} of {record.parts}")
        expected = HOOKS[record.end] if record.has_hooks else []
        if record.hooks != expected:
            self._violated(record, f"is {record.end}, and these hooks ran: {record.hooks}")
        self.tally["checked"] += 1

    def _violated(self, record: Record, what: str) -> None:
        self.violations.append(f"transaction {record.number} {what}")

    async def finish(self, witness: Witness) -> None:
        """Check the rest, when nothing can arrive any more; then nothing may be left."""
        await self.check(witness, all_of_them=True)
        if self._open:
            self.violations.append(f"{self._open} transactions never ended")
        for number in sorted(await witness.numbers()):
            self.violations.append(f"transaction {number} came into being after its end")
