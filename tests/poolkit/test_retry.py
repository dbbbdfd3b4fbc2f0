"""How long to wait before the next attempt."""

from hypothesis import given
from hypothesis import strategies as st

from poolkit.retry import FIRST, LONGEST, pause


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_within_bounds(attempt: int, luck: float) -> None:
    """A pause is spread around a middle that doubles and is bounded."""
    middle = min(LONGEST, FIRST * 2 ** (attempt - 1))
    assert middle / 2 <= pause(attempt, luck) <= middle * 1.5
