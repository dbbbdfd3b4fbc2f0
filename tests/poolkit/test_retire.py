"""Who is too old, as a function of numbers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolkit._retire import Ages, expiry, judge
from poolkit._session import Reason, Slot


def _slot(*, idle_since: float = 0.0, expires: float | None = None) -> Slot[int]:
    slot = Slot(1, generation=0, born=0.0, expires=expires)
    slot.idle_since = idle_since
    slot.pinged = idle_since
    return slot


@given(st.integers(1, 40), st.floats(10, 10_000))
def test_a_cohort_ends_one_by_one(size: int, lifetime: float) -> None:
    """Of connections born at one moment no two end closer than lifetime / size, none too late."""
    ends: list[float] = []
    for _ in range(size):
        ends.append(expiry(100.0, lifetime, ends, size))
    gaps = [later - earlier for earlier, later in zip(sorted(ends), sorted(ends)[1:], strict=False)]
    assert all(gap >= lifetime / size * 0.999 for gap in gaps)
    assert all(100.0 < end <= 100.0 + lifetime for end in ends)


@given(st.integers(2, 12), st.integers(1, 60))
def test_replacements_keep_the_distance(size: int, turns: int) -> None:
    """Whoever replaces the one that ends first keeps its distance from all others, for ever."""
    lifetime = 600.0
    ends: list[float] = []
    for _ in range(size):
        ends.append(expiry(0.0, lifetime, ends, size))
    for _ in range(turns):
        now = min(ends)
        ends.remove(now)
        ends.append(expiry(now, lifetime, ends, size))
        ordered = sorted(ends)
        assert all(b - a >= lifetime / size * 0.999 for a, b in itertools.pairwise(ordered))


@given(st.lists(st.floats(0, 1000), max_size=20), st.integers(1, 10))
def test_there_is_always_an_end(others: list[float], size: int) -> None:
    """However odd the others are, a connection ends within its lifetime."""
    assert 500.0 < expiry(500.0, 300.0, others, size) <= 800.0


def test_idle_ones_leave_down_to_the_floor() -> None:
    """Those above min_size leave after idle_timeout, least recently used first."""
    idle = [_slot(idle_since=float(since)) for since in (0, 1, 2, 9)]
    verdict = judge(idle, 4, 10.0, Ages(idle_timeout=5.0, keepalive=None, min_size=2))
    assert verdict.retire == [(idle[0], Reason.IDLE), (idle[1], Reason.IDLE)]
    assert verdict.again is None


def test_age_ends_those_of_the_floor_too() -> None:
    """A lifetime ends any connection; the floor is refilled by the books."""
    old, young = _slot(expires=9.0), _slot(expires=12.0)
    verdict = judge([old, young], 2, 10.0, Ages(idle_timeout=None, keepalive=None, min_size=2))
    assert verdict.retire == [(old, Reason.LIFETIME)]
    assert verdict.again == pytest.approx(12.0)


def test_keepalive_counts_from_the_last_sign_of_life() -> None:
    """A ping is due when neither use nor ping was recent."""
    silent, used = _slot(idle_since=0.0), _slot(idle_since=8.0)
    verdict = judge([silent, used], 2, 10.0, Ages(idle_timeout=None, keepalive=5.0, min_size=2))
    assert verdict.ping == [silent]
    assert verdict.again == pytest.approx(13.0)
