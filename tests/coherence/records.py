"""What processes write down for the judge: fixed records in one file per process.

All times are nanoseconds of ``CLOCK_MONOTONIC``, which the processes of a machine share.
"""

from __future__ import annotations

import enum
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FORMAT = struct.Struct("<BIqqQ")
_FLUSH_AT = 64 * 1024


class Kind(enum.IntEnum):
    """What a record says. Reads come first; the rest is about one version of one key."""

    ASYNC = 0
    """A cached async function; the other reads through the whole cache follow."""
    SYNC = 1
    MANY = 2
    REFRESHED = 3
    """A function that refreshes ahead."""
    BY_KEY = 4
    SET = 5
    """A value that transactions `set`."""
    STRICT = 6
    """A function whose key is strict."""
    L2 = 10
    """`Cache.get` of a cache that has this tier alone."""
    L3 = 11
    SENT = 20
    """The transaction's block is about to end: ``start``."""
    RETURNED = 21
    """The block has returned without an error: ``start``."""
    UNKNOWN = 22
    """The outcome of its commit is not known."""
    WAS_SET = 23
    """The version was `set` under its `SET` key, which was not invalidated beside it."""
    HEARD = 30
    """An event has been handled (``end``) that named the version, ``start`` after it was made."""
    PASSED = 31
    """A pass that named the version has reached every tier and the bus: ``end``."""


WHOLE = frozenset(
    {Kind.ASYNC, Kind.SYNC, Kind.MANY, Kind.REFRESHED, Kind.BY_KEY, Kind.SET, Kind.STRICT}
)
"""Reads through a whole cache, L1 included but for strict ones."""
SINGLE = frozenset({Kind.L2, Kind.L3})
SETTLED = 0x80
"""Added to a read when nothing was written any more and everything had come to rest."""


class Record(NamedTuple):
    """One line of the protocol."""

    kind: int
    key: int
    start: int
    end: int
    version: int


class Recorder:
    """Writes records, from any thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._buffer = bytearray()
        self._lock = threading.Lock()

    def read(self, kind: int, key: int, start: int, version: int) -> None:
        """Note a read that has just returned."""
        self.note(kind, key, version, start=start, end=time.monotonic_ns())

    def note(self, kind: int, key: int, version: int, *, start: int = 0, end: int = 0) -> None:
        """Note anything."""
        with self._lock:
            self._buffer += _FORMAT.pack(kind, key, start, end, version)
            full = len(self._buffer) >= _FLUSH_AT
        if full:
            self.flush()

    def flush(self) -> None:
        """Hand over what was noted: it outlives this process."""
        with self._lock:
            if self._buffer:
                os.write(self._file, self._buffer)
                self._buffer.clear()

    def close(self) -> None:
        """Hand over the rest."""
        self.flush()
        os.close(self._file)


def load(path: Path) -> Iterator[Record]:
    """Yield what a process has noted; it may have died while it wrote."""
    data = path.read_bytes()
    whole = len(data) - len(data) % _FORMAT.size
    return map(Record._make, _FORMAT.iter_unpack(data[:whole]))
