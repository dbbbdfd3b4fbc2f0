"""How long to wait before a transaction that lost a race is run again."""

from __future__ import annotations

FIRST, LONGEST = 0.01, 1.0
"""Seconds: the middle of the first pause, and of the longest."""


def pause(attempt: int, luck: float) -> float:
    """Return seconds after the given attempt (1, 2, …); ``luck`` in [0, 1) spreads it.

    It doubles from attempt to attempt and is drawn between half and one and a half of its middle,
    so that those who collided do not collide again.
    """
    middle: float = min(LONGEST, FIRST * 2.0 ** (attempt - 1))
    return middle * (0.5 + luck)
