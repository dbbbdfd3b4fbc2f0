"""What a strict reader sees of a tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tiercache.tiers.base import Ask, Basis, RemoteTier, Stored


class Sight(NamedTuple):
    """The answer to one ask. ``round`` says to go to the loader, and to let nobody join."""

    stored: Stored | None
    round: bool = False


class StrictTier(RemoteTier, Protocol):
    """A tier whose values are never older than an acknowledged commit.

    `read` and `lease` leave alone what a transaction that may have committed has marked, and `fill`
    refuses it: an accepted fill proves that no such commit was acknowledged since its lease.
    """

    async def look(self, asks: Sequence[Ask]) -> list[Sight]:
        """Read, and say where to go round the tier."""
        ...


def nowhere(key: str) -> Basis:
    """Return the basis of a load whose result goes nowhere."""
    return Basis(key, b"", (), b"")


def is_nowhere(basis: Basis) -> bool:
    """Whether it is such a basis."""
    return not basis.token
