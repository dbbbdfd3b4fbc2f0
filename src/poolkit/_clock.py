"""Where time and luck come from: one object, so that a test can move it."""

from __future__ import annotations

import random
import time
from typing import Protocol


class Clock(Protocol):
    """One reading of time, in seconds, and one of luck."""

    def monotonic(self) -> float:
        """Return a reading that never goes back."""
        ...

    def luck(self) -> float:
        """Return a random number in [0, 1)."""
        ...


class SystemClock:
    """The machine's own. The attributes are the C functions themselves: no frame per call."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    luck = staticmethod(random.random)
