"""Doubles for tests of code that uses a cache."""

from __future__ import annotations


class FakeClock:
    """A clock that moves only when it is told to; pass it as ``Cache(clock=...)``.

    Both readings start where they are put, far apart like those of a real machine, so that code
    which mixes them up is found out. Seconds throughout.
    """

    __slots__ = ("_monotonic", "_time")

    def __init__(self, *, monotonic: float = 1_000.0, time: float = 1_700_000_000.0) -> None:
        self._monotonic = float(monotonic)
        self._time = float(time)

    def monotonic(self) -> float:
        """Return the reading that never goes back."""
        return self._monotonic

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Move both readings forward; `ValueError` for a negative number of seconds."""
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds!r}: a monotonic clock only moves forward")
        self._monotonic += seconds
        self._time += seconds

    def __repr__(self) -> str:
        return f"FakeClock(monotonic={self._monotonic!r}, time={self._time!r})"
