"""Where time comes from: one object, so that a test can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of one clock, both in seconds."""

    def monotonic(self) -> float:
        """Return a reading that never goes back; deadlines in this process use it."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch; times that travel to other processes use it."""
        ...


class SystemClock:
    """The machine's own clock. The attributes are the C functions themselves: no frame per call."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
