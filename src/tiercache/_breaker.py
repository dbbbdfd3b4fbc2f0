"""The circuit breaker of a remote tier: an explicit state machine that knows no clock of its own.

::

    CLOSED ──failed──> OPEN ──probing──> HALF_OPEN ──restored──> CLOSED
                        ^                    │
                        └──────failed────────┘   after a delay that doubles

One failure opens it. While it is not closed nothing is admitted: the half-open probe is made in the
background, never by a caller's request.
"""

from __future__ import annotations

import enum
import threading
from typing import Final

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 0.5


class State(enum.Enum):
    """Where the circuit stands; the values are those of the metric."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Decides who may call. Times are readings of the caller's monotonic clock, in seconds.

    A ticket names the period in which a call was admitted: a failure that comes in late, from a
    call made before the circuit opened and closed again, says nothing about the present.
    """

    __slots__ = ("_delay", "_due", "_lock", "_period", "_state")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._period = 0
        self._delay = FIRST_DELAY
        self._due = 0.0

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    def admit(self) -> int | None:
        """Return a ticket for one call; None while nothing may be sent. Takes no lock."""
        period = self._period
        return period if self._state is State.CLOSED else None

    def failed(self, ticket: int, now: float) -> bool:
        """Open the circuit for a call that found the tier unavailable; True if it was closed."""
        with self._lock:
            if self._state is not State.CLOSED or ticket != self._period:
                return False
            self._delay = FIRST_DELAY
            self._open(now)
            return True

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next probe is due; None when none is wanted."""
        with self._lock:
            return max(0.0, self._due - now) if self._state is State.OPEN else None

    def probing(self, now: float) -> bool:
        """Let one probe through, if it is due: from open to half-open."""
        with self._lock:
            if self._state is not State.OPEN or now < self._due:
                return False
            self._state = State.HALF_OPEN
            return True

    def probe_failed(self, now: float) -> None:
        """Open the circuit again, for twice as long as before."""
        with self._lock:
            if self._state is State.HALF_OPEN:
                self._delay = min(2 * self._delay, LONGEST_DELAY)
                self._open(now)

    def restored(self) -> bool:
        """Close the circuit after a probe that was answered; True if it was half-open."""
        with self._lock:
            if self._state is not State.HALF_OPEN:
                return False
            self._state = State.CLOSED
            return True

    def _open(self, now: float) -> None:
        # The period ends first: `admit` reads the two without the lock, in the other order.
        self._period += 1
        self._state = State.OPEN
        self._due = now + self._delay
