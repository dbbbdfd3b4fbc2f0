"""What snapshots and marks say, without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiercache._sql.events import NOTHING, Mark, Reading, Snapshot


def test_a_snapshot_is_read_as_postgres_writes_it() -> None:
    """Its end and what was open, with and without any."""
    assert Snapshot.parse("10:20:10,14,15") == ("10:20:10,14,15", 20, {10, 14, 15})
    assert Snapshot.parse("10:10:") == ("10:10:", 10, frozenset())


@pytest.mark.parametrize(
    ("later", "earlier", "covers"),
    [
        ("10:10:", "10:10:", True),
        ("11:11:", "10:10:", True),
        ("10:10:", "11:11:", False),
        ("10:12:10", "10:11:10", True),
        ("10:12:10", "11:11:", False),
        ("12:12:", "10:12:10", True),
        ("10:20:10,15", "10:14:10", True),
        ("10:10:", NOTHING.text, True),
    ],
)
def test_a_later_snapshot_covers_an_earlier_one(later: str, earlier: str, covers: bool) -> None:
    """It has seen all that the other could see; being further on is not enough."""
    assert Snapshot.parse(later).covers(Snapshot.parse(earlier)) is covers


@given(st.lists(st.booleans(), max_size=30), st.data())
def test_snapshots_of_one_history(begins: list[bool], data: st.DataObject) -> None:
    """Over any history, a snapshot covers another if and only if it sees all that the other sees.

    Each step a transaction begins, or one of the open ones ends. What PostgreSQL calls the end is
    one past the last that has ended.
    """
    first, following, end, still = 5, 5, 5, set[int]()
    taken: list[tuple[Snapshot, set[int]]] = []
    for begin in [*begins, True]:
        if begin or not still:
            still.add(following)
            following += 1
        else:
            ended = data.draw(st.sampled_from(sorted(still)))
            still.discard(ended)
            end = max(end, ended + 1)
        seen = set(range(first, end)) - still
        known = sorted(xid for xid in still if xid < end)
        text = f"{min(known, default=end)}:{end}:{','.join(map(str, known))}"
        taken.append((Snapshot.parse(text), seen))
    for one, saw in taken:
        for other, it_saw in taken:
            assert one.covers(other) is (it_saw <= saw)


def test_a_mark_comes_back() -> None:
    """What is written into the first row is read from it."""
    mark = Mark("5f0e", Snapshot.parse("10:20:10,14"))
    assert Mark.parse(mark.encode()) == mark


def test_a_reading_without_events_or_mark() -> None:
    """The one row that is always there says where the database stands."""
    reading = Reading.of([("7:7:", 1.5, None, None, None, None)])
    assert (reading.snapshot.end, reading.at, reading.mark, reading.records) == (7, 1.5, None, [])
