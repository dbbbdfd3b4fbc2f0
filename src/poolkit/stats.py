"""The figures of a pool at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One snapshot; ``idle + used + connecting == size <= max_size`` always holds.

    ``used`` are held by borrowers; ``connecting`` are being opened, checked or cleaned;
    ``waiting`` requests queue for one. ``acquired``, ``released`` and ``timeouts`` count since the
    pool was opened, and ``acquired == released + used``.
    """

    size: int
    idle: int
    used: int
    connecting: int
    waiting: int
    max_size: int
    acquired: int
    released: int
    timeouts: int
