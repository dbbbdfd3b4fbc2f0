"""What is asked of a benchmark, and whether it was reached. Shown, never asserted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One thing asked for: ``measured`` at most ``limit``, or at least."""

    work: str
    asked: str
    """In words, with the number: "of asyncpg.Pool: at most 0.65"."""
    measured: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def at_most(work: str, limit: float, measured: float, of: str) -> Bar:
    """Return a bar on a cost: a ratio or a number, the less the better."""
    return Bar(work, f"≤ {limit:g} {of}", measured, limit)


def at_least(work: str, limit: float, measured: float, of: str) -> Bar:
    """Return a bar on a gain: a ratio, the more the better."""
    return Bar(work, f"≥ {limit:g} {of}", measured, limit, at_least=True)
