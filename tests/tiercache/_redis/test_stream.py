"""Positions on the stream of events: what follows, and what is a gap."""

import pytest

from tiercache._redis.stream import EVENT, Entry, Position, entries


def entry(number: int, stream: bytes = b"s") -> Entry:
    """Return the entry of this number."""
    return Entry(b"%d-0" % number, stream, number, EVENT, b"")


def test_the_next_number_of_the_same_stream_follows() -> None:
    """Dense numbers are no gap."""
    assert Position.after(entry(4)).gap_before(entry(5)) is None


@pytest.mark.parametrize("found", [entry(6), entry(4), entry(3), entry(1), entry(5, b"other")])
def test_anything_else_is_a_gap(found: Entry) -> None:
    """A number left out, a repeated one and another stream are gaps."""
    assert Position.after(entry(4)).gap_before(found) is not None


def test_a_stream_that_did_not_exist_begins_with_one() -> None:
    """Before the first entry, number 1 of any stream follows, and nothing else."""
    start = Position.after(None)
    assert start.gap_before(entry(1)) is None
    assert start.gap_before(entry(2)) is not None


@pytest.mark.parametrize(
    ("tail", "lost"),
    [(entry(4), False), (entry(9), False), (entry(3), True), (entry(9, b"x"), True), (None, True)],
)
def test_a_tail_proves_a_position_or_not(tail: Entry | None, lost: bool) -> None:
    """The same end or one further on is fine; an earlier one, another stream, none are not."""
    assert (Position.after(entry(4)).gap_at(tail) is not None) == lost
    assert Position.after(None).gap_at(tail) is None


def test_rows_are_read() -> None:
    """Rows become entries; no rows become none."""
    row = (b"1-0", [b"id", b"s", b"n", b"7", b"e", b"data"])
    assert entries([row]) == [Entry(b"1-0", b"s", 7, b"e", b"data")]
    assert entries(None) == []


@pytest.mark.parametrize("fields", [[], [b"id", b"s"], [b"x", b"s", b"n", b"7", b"e", b"d"]])
def test_strange_rows_are_refused(fields: list[bytes]) -> None:
    """Entries that somebody else added are no events."""
    with pytest.raises(ValueError, match="not an entry"):
        entries([(b"1-0", fields)])
