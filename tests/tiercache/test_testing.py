import pytest

from tiercache.testing import FakeClock


def test_moves_both_readings_and_only_when_told() -> None:
    """The two readings start where they are put and move together."""
    clock = FakeClock(monotonic=5, time=100)
    assert (clock.monotonic(), clock.time()) == (5.0, 100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (7.5, 102.5)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_refuses_to_go_back(seconds: float) -> None:
    """A monotonic clock only moves forward."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="only moves forward"):
        clock.advance(seconds)
    assert clock.monotonic() == 1_000.0
