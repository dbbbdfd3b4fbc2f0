"""The stream of events: what an entry says, and whether it follows the one before.

Every entry carries the stream's random id and a dense number. Redis itself would not say that
something is missing: after FLUSHALL, a restart without persistence or a trim, a reader that asks
for what came after its last entry is told "nothing" or is given what is left. The numbers say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tiercache._redis.scripts import PUBLISH

KEPT: Final = 10_000
"""Events that are kept for readers that were away, roughly."""

EVENT: Final = b"e"
PROBE: Final = b"p"


class Entry(NamedTuple):
    """One entry as it was read: its place in Redis, the stream, its number, what it carries."""

    place: bytes
    stream: bytes
    number: int
    field: bytes
    content: bytes


class Position(NamedTuple):
    """The last entry that was seen. A stream of None does not exist yet: it will begin with 1."""

    place: bytes
    stream: bytes | None
    number: int

    @classmethod
    def after(cls, entry: Entry | None) -> Position:
        """Return the position behind this entry, or before the first one."""
        if entry is None:
            return cls(b"0-0", None, 0)
        return cls(entry.place, entry.stream, entry.number)

    def gap_before(self, entry: Entry) -> str | None:
        """Return why something is missing between this position and the next entry, if it is."""
        if self.stream is not None and entry.stream != self.stream:
            return "the stream of events was lost and has begun anew"
        if entry.number != self.number + 1:
            return f"event {entry.number} came after {self.number}: the stream was trimmed or lost"
        return None

    def gap_at(self, tail: Entry | None) -> str | None:
        """Return why this position cannot be on the stream that ends like this, if it cannot.

        A tail that is further on is no gap: what lies between is about to be read.
        """
        if self.stream is None:
            return None
        if tail is None or tail.stream != self.stream or tail.number < self.number:
            return "the stream of events was lost"
        return None


def publish(
    stream: bytes,
    contents: Sequence[bytes],
    *,
    fresh: bytes,
    field: bytes = EVENT,
    deleting: Sequence[bytes] = (),
) -> tuple[bytes, ...]:
    """Return the command that deletes keys and adds entries, in one step.

    ``fresh`` is a random token: the id of the stream if there is none yet. A script, because unlike
    MULTI it is let in when the memory is full.
    """
    return PUBLISH.on((stream, *deleting), fresh.hex().encode(), b"%d" % KEPT, field, *contents)


def entries(rows: Sequence[tuple[bytes, Sequence[bytes]]] | None) -> list[Entry]:
    """Read the rows of an XRANGE or of one stream of an XREAD; ValueError for strange ones."""
    found = []
    for place, fields in rows or ():
        if len(fields) != 6 or fields[0] != b"id" or fields[2] != b"n":
            raise ValueError(f"not an entry of tiercache: {fields!r:.100}")
        found.append(Entry(place, fields[1], int(fields[3]), fields[4], fields[5]))
    return found
