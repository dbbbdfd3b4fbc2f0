"""The judge on records made by hand: what it flags, and what it must let pass."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.coherence.judge import Judge, marked, marker
from tests.coherence.records import SETTLED, Kind, Record

SECOND = 1_000_000_000
KEY = 3


def judged(records: dict[int, Iterable[Record]], committed: Iterable[int] = (0, 1, 2)) -> list[str]:
    """Return the violations among the records of each process."""
    return Judge({KEY: set(committed)}, records, bus_timeout=1.0).judge().violations


def read(start: float, version: int, kind: int = Kind.ASYNC) -> Record:
    """Return a read that took a moment."""
    return Record(kind, KEY, round(start * SECOND), round((start + 0.01) * SECOND), version)


def said(kind: Kind, at: float, version: int) -> Record:
    """Return what a process noted of a version."""
    return Record(kind, KEY, round(at * SECOND), round(at * SECOND), version)


def test_own_writes() -> None:
    """A process that has returned from its block may read nothing older; before that it may."""
    returned = said(Kind.RETURNED, 1.0, 1)
    assert not judged({1: [returned, read(0.9, 0), read(1.1, 1), read(1.1, 2)]})
    [violation] = judged({1: [returned, read(1.1, 0)]})
    assert violation.startswith("stale: process 1")
    assert not judged({1: [returned], 2: [read(1.1, 0)]}), "that is the bus' affair"


def test_what_was_heard() -> None:
    """A process that has handled the event may read nothing older."""
    heard = said(Kind.HEARD, 1.0, 1)
    assert not judged({2: [heard, read(0.99, 0), read(1.0, 1)]})
    assert judged({2: [heard, read(1.0, 0)]})
    assert not judged({2: [heard], 1: [read(1.0, 0)]})


def test_bus_timeout() -> None:
    """Who hears nothing may read old values from L1 for `bus_timeout` after the whole pass."""
    passed = said(Kind.PASSED, 1.0, 1)
    assert not judged({1: [passed], 2: [read(1.99, 0)]})
    assert judged({1: [passed], 2: [read(2.0, 0)]})


@pytest.mark.parametrize("kind", [Kind.L2, Kind.L3])
def test_a_shared_tier(kind: Kind) -> None:
    """A shared tier holds nothing older once the pass has returned, whoever asks."""
    passed = said(Kind.PASSED, 1.0, 1)
    assert not judged({1: [passed], 2: [read(0.99, 0, kind)]})
    assert judged({1: [passed], 2: [read(1.0, 0, kind)]})
    returned = said(Kind.RETURNED, 1.0, 1)
    assert not judged({1: [returned, read(1.1, 0, kind)]}), "it may not have been reached"


def test_dirty_reads() -> None:
    """What was never committed, or not yet, may be read by nobody."""
    assert judged({1: [read(1.0, 5)]}) == [
        "dirty: process 1 read 5 of key 3 (ASYNC) at 1.000000: it was never committed"
    ]
    sent = said(Kind.SENT, 1.0, 1)
    assert judged({1: [sent], 2: [read(0.5, 1)]})
    assert not judged({1: [sent], 2: [read(0.995, 1)]}), "it may have been committed meanwhile"


def test_rest() -> None:
    """At rest everybody reads the last version."""
    assert not judged({1: [read(9.0, 2, Kind.SYNC | SETTLED)]})
    [violation] = judged({1: [read(9.0, 1, Kind.SYNC | SETTLED)]})
    assert violation.startswith("unsettled")


def test_an_unknown_outcome_binds_nobody() -> None:
    """An event of a commit that may land later says nothing of what can be read."""
    unknown, heard = said(Kind.UNKNOWN, 0.9, 1), said(Kind.HEARD, 1.0, 1)
    assert not judged({1: [unknown], 2: [heard, read(1.1, 0)]})


def test_what_rolled_back_binds_nobody() -> None:
    """A version that is not in the database asks for nothing."""
    assert not judged({1: [said(Kind.HEARD, 1.0, 1), read(1.1, 0)]}, committed=[0])


def test_a_set_has_a_pass_of_its_own() -> None:
    """Of a value that was set the pass of the rest says nothing; own writes bind as ever."""
    was_set, passed = said(Kind.WAS_SET, 0.9, 1), said(Kind.PASSED, 1.0, 1)
    returned = said(Kind.RETURNED, 1.1, 1)
    records = [was_set, passed, returned]
    assert not judged({1: records, 2: [read(9.0, 0, Kind.SET)]})
    assert judged({1: [*records, read(1.2, 0, Kind.SET)]})
    assert judged({1: records, 2: [read(9.0, 0, Kind.ASYNC)]})


def test_strict_keys() -> None:
    """A strict read returns nothing older than any acknowledged commit, whoever wrote it."""
    returned = said(Kind.RETURNED, 1.0, 1)
    assert not judged({1: [returned], 2: [read(0.99, 0, Kind.STRICT)]})
    assert judged({1: [returned], 2: [read(1.0, 0, Kind.STRICT)]})


def test_markers() -> None:
    """An invalidation names the versions it is about."""
    assert marked(["item:3", marker(3, 1 << 40), "v"]) == [(3, 1 << 40)]
