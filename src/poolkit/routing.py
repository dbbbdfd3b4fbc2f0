"""Which server answers a read-only transaction: a replica that is close enough behind, if any.

A replica is asked for its lag on a connection that was borrowed from it anyway, and not more often
than half the time it may be behind. One that is too far behind, or cannot be reached, is left alone
for a while; what is left is the primary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from poolkit._clock import Clock
from poolkit._statements import Borrow, logger
from poolkit.driver import SupportsLag
from poolkit.errors import PoolError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds for which a replica that failed is left alone, doubled each time."""


class Lender(Protocol):
    """A pool to borrow from."""

    name: str

    async def lend(self, timeout: float | None) -> Borrow:
        """Borrow a connection."""
        ...


class Replica:
    """A replica, and what is known of it."""

    def __init__(self, lender: Lender) -> None:
        self.lender = lender
        self.current_until = float("-inf")
        """Until when its last measured lag is to be believed."""
        self.out_until = float("-inf")
        """Until when it is left alone."""
        self.failures = 0


class Router:
    """Chooses among replicas in turn."""

    def __init__(self, lenders: Sequence[Lender], *, max_lag: float, clock: Clock) -> None:
        self._replicas = [Replica(lender) for lender in lenders]
        self._max_lag = max_lag
        self._clock = clock
        self._turn = 0

    async def lend(self, timeout: float | None) -> Borrow | None:
        """Borrow from a replica that is not too far behind; None if there is none."""
        for replica in self._in_turn():
            try:
                borrow = await replica.lender.lend(timeout)
            except (PoolError, OSError) as error:
                self._leave_alone(replica, str(error))
                continue
            try:
                good = await self._is_current(replica, borrow)
            except BaseException:
                borrow.end()
                raise
            if good:
                return borrow
            borrow.end()
        return None

    def _in_turn(self) -> list[Replica]:
        """Return those that are not left alone, beginning with another one each time."""
        now = self._clock.monotonic()
        self._turn += 1
        at = self._turn % len(self._replicas)
        ordered = self._replicas[at:] + self._replicas[:at]
        return [replica for replica in ordered if replica.out_until <= now]

    async def _is_current(self, replica: Replica, borrow: Borrow) -> bool:
        session = borrow.session
        now = self._clock.monotonic()
        if now < replica.current_until or not isinstance(session, SupportsLag):
            return True
        try:
            lag = await session.lag(borrow.host.config.housekeeping_timeout)
        except Exception as error:  # noqa: BLE001  it is not fit to be read from
            self._leave_alone(replica, str(error))
            return False
        if lag > self._max_lag:
            self._leave_alone(replica, f"it is {lag:.3g} s behind")
            return False
        replica.failures = 0
        replica.current_until = self._clock.monotonic() + self._max_lag / 2
        return True

    def _leave_alone(self, replica: Replica, why: str) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**replica.failures)
        replica.failures += 1
        replica.out_until = self._clock.monotonic() + pause
        logger.warning(
            "replica %r is left alone for %g s, the primary reads: %s",
            replica.lender.name, pause, why,
        )  # fmt: skip
