"""A tier seen through another one: what a strict tier leaves to the tier that it is a view of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from tiercache.tiers.base import Basis, Blocking, Kind, RemoteTier

T = TypeVar("T", bound=RemoteTier)


class View(Generic[T]):
    """The operations that are the same for strict readers; connections are those of ``below``."""

    def __init__(self, below: T) -> None:
        self._tier = below

    @property
    def kind(self) -> Kind:
        """What the tier below is."""
        return self._tier.kind

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self._tier.timeout

    @property
    def blocking(self) -> Blocking | None:
        """None: calls from threads go by way of the cache's own loop."""
        return None

    def bind(self, namespace: str) -> None:
        """Do nothing: the tier below is bound."""

    async def open(self) -> None:
        """Open the tier below."""
        await self._tier.open()

    async def ping(self) -> None:
        """Answer, or raise `TierError`."""
        await self._tier.ping()

    async def prune(self, limit: int) -> int:
        """Return 0: the tier below is pruned by itself."""
        return 0

    async def aclose(self) -> None:
        """Do nothing: the tier below is closed."""

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        return await self._tier.renew(bases, ttl)

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return await self._tier.release(bases)

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        await self._tier.invalidate(keys, tags, events)

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        await self._tier.clear(events)
