"""What can be chosen about a run, and what cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

USERS: Final = 500
"""Users that the load asks for; user 1 most often."""
SKEW: Final = 1.1
"""The exponent of the Zipf distribution: user n is asked for ``n ** -SKEW`` as often as user 1."""
ENTRIES: Final = 250
"""The size of L1: smaller than what is asked for, so that the tiers below it have work."""
TTL: Final = "60s"
THREADS: Final = 2
WRITERS: Final = 2
WORKER_READERS: Final = 4
PROOF_USER: Final = USERS + 1
"""A user whom the load does not ask for: what happens to it, the proofs do."""
COLD_USER: Final = USERS + 2
"""A user whom nobody has asked for before the stampede."""
LOST_USERS: Final = range(USERS + 3, USERS + 53)
"""Users whom L2 loses."""
CROWD: Final = 100
"""Callers of each process in the stampede."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run: its length in seconds, its callers, and the servers to use instead of a file."""

    seconds: float = 8.0
    readers: int = 12
    processes: int = 2
    seed: int = 1
    redis_url: str | None = None
    database_url: str | None = None
