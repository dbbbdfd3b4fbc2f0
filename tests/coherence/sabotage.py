"""Takes one mechanism out of this process, to see whether the judge notices."""

from __future__ import annotations

from collections.abc import Sequence

from tiercache._flight import Flight
from tiercache.invalidation import Invalidation
from tiercache.tiers.base import Ask, Fill, Filled
from tiercache.tiers.redis import RedisTier


def take_out(mechanism: str) -> None:
    """Take it out, for every cache of this process made from now on."""
    MECHANISMS[mechanism]()


def _compare_and_set() -> None:
    """Let a fill replace whatever is there."""

    compared = RedisTier.fill

    async def fill(self: RedisTier, fills: Sequence[Fill]) -> list[Filled]:
        asks = [Ask(fill.basis.key, tuple(tag for tag, _ in fill.basis.tags)) for fill in fills]
        bases = await self.lease(asks, 30.0)  # impatient: it is the basis, whatever was there
        return await compared(
            self, [fill._replace(basis=basis) for fill, basis in zip(fills, bases, strict=True)]
        )

    RedisTier.fill = fill  # type: ignore[method-assign]


def _void_flights() -> None:
    """Let a flight fill L1 whatever was invalidated since."""
    Flight.fills = property(lambda self: True)  # type: ignore[method-assign, assignment]


def _own_memory_last() -> None:
    """Leave this process' own L1 as it is."""
    Invalidation._void = lambda self, change: None  # type: ignore[method-assign]


MECHANISMS = {
    "compare-and-set": _compare_and_set,
    "void flights": _void_flights,
    "invalidation of L1": _own_memory_last,
}
