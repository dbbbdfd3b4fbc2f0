import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiercache.eviction.slots import make_slot
from tiercache.entry import Slot
from tiercache.eviction.expiry import RESOLUTION, SLACK, Expiry


def add(expiry: Expiry, *times: float) -> None:
    """Add one slot for each end of life."""
    for time in times:
        expiry.add(make_slot(str(time), until=time))


def due(expiry: Expiry, now: float, limit: int = 100) -> list[float]:
    """Return the ends of life of the slots that are due."""
    return sorted(slot.stale_until for slot in expiry.due(now, limit))


def held(expiry: Expiry) -> list[Slot]:
    """Walk through the buckets both ways; return what is in them."""
    found = []
    for number, bucket in expiry._buckets.items():
        assert bucket.number == number
        forth, back = [], []
        slot = bucket.bucket_next
        while slot is not bucket:
            forth.append(slot)
            slot = slot.bucket_next
        slot = bucket.bucket_prev
        while slot is not bucket:
            back.append(slot)
            slot = slot.bucket_prev
        assert forth == back[::-1] != []
        found += forth
    return found


def test_gives_what_is_over_once() -> None:
    """A slot is due from the moment its time is over, and then forgotten."""
    expiry = Expiry()
    add(expiry, 10.0, 11.3, 500.0)
    assert due(expiry, 9.99) == []
    assert due(expiry, 10.0) == [10.0]
    assert due(expiry, 400.0) == [11.3]
    assert due(expiry, 499.99) == []
    assert due(expiry, 500.0) == [500.0]
    assert not held(expiry)


def test_time_within_a_bucket_counts() -> None:
    """Of two slots in one bucket, the one that is not over stays."""
    expiry = Expiry()
    add(expiry, 10.1, 10.4)
    assert due(expiry, 10.2) == [10.1]
    assert due(expiry, 10.4) == [10.4]


def test_slots_that_never_expire_are_not_kept() -> None:
    """An infinite life costs nothing here."""
    expiry = Expiry()
    slot = make_slot("a")
    expiry.add(slot)
    assert not held(expiry)
    expiry.discard(slot)


def test_times_before_zero() -> None:
    """A clock may start anywhere."""
    expiry = Expiry()
    add(expiry, -0.2, 0.2)
    assert due(expiry, -0.3) == []
    assert due(expiry, 0.0) == [-0.2]
    assert due(expiry, 0.2) == [0.2]


def test_limit_bounds_the_work() -> None:
    """Many slots that are due at once come in batches."""
    expiry = Expiry()
    add(expiry, *(10 + number / 1_000 for number in range(1_000)))
    batches = [len(expiry.due(100.0, 300)) for _ in range(5)]
    assert batches == [300, 300, 300, 100, 0]


def test_limit_bounds_the_looking_too() -> None:
    """In the bucket that is not over, slots are looked at in turn until all were."""
    expiry = Expiry()
    add(expiry, *(10.4 for _ in range(50)), 10.1)
    calls = [expiry.due(10.2, 10) for _ in range(60)]
    assert max(map(len, calls)) <= 1
    assert [slot.stale_until for call in calls for slot in call] == [10.1]


def test_a_discarded_slot_is_never_due() -> None:
    """What left for another reason does not come back."""
    expiry = Expiry()
    slot = make_slot("a", until=10.0)
    expiry.add(slot)
    expiry.discard(slot)
    expiry.discard(slot)
    assert not held(expiry)
    assert expiry.due(100.0, 10) == []


def test_a_key_that_comes_and_goes_leaves_nothing_behind() -> None:
    """Buckets that became empty take no memory, although their time is far away."""
    expiry = Expiry()
    for number in range(10_000):
        slot = make_slot("a", until=1e6 + number * RESOLUTION)
        expiry.add(slot)
        expiry.discard(slot)
    assert not expiry._buckets
    assert len(expiry._numbers) <= 2 + SLACK


def test_a_bucket_that_empties_and_fills_again_still_comes_due() -> None:
    """Tidying the heap loses no bucket."""
    expiry = Expiry()
    kept = make_slot("kept", until=50.0)
    expiry.add(kept)
    for number in range(3 * SLACK):
        slot = make_slot("a", until=60.0 + number % 7)
        expiry.add(slot)
        expiry.discard(slot)
    last = make_slot("last", until=62.0)
    expiry.add(last)
    assert expiry.due(100.0, 10) == [kept, last]


def test_clear_forgets_everything() -> None:
    """Nothing is due after a clear, and new slots still are."""
    expiry = Expiry()
    add(expiry, 10.0)
    expiry.clear()
    add(expiry, 11.0)
    assert due(expiry, 100.0) == [11.0]


@given(
    times=st.lists(st.floats(-50, 50), max_size=40),
    steps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 20)), max_size=10),
)
@pytest.mark.parametrize("resolution", [RESOLUTION, 0.1, 7.0])
def test_never_early_and_never_more_than_one_bucket_late(
    resolution: float, times: list[float], steps: list[tuple[float, int]]
) -> None:
    """Every slot comes out after its end of life, and soon if enough are asked for."""
    expiry = Expiry(resolution)
    add(expiry, *times)
    left, now = sorted(times), -60.0
    for seconds, limit in steps:
        now += seconds
        found = expiry.due(now, limit)
        assert len(found) <= limit
        for slot in found:
            assert slot.stale_until <= now
            left.remove(slot.stale_until)
        if len(found) < limit:
            assert all(time >= now - resolution for time in left)
    assert sorted(slot.stale_until for slot in held(expiry)) == left
