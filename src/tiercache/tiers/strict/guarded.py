"""A strict tier behind the circuit of the tier that it is a view of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from tiercache._redis.strict import Founded, Mark
from tiercache.tiers.base import Ask, Fill, Filled
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.strict.redis import Marks, StrictRedis
from tiercache.tiers.strict.sight import Sight, StrictTier

_T = TypeVar("_T")


class GuardedStrict(GuardedTier):
    """A `StrictTier` with the circuit, the time limit and the counters of ``beside``."""

    def __init__(self, tier: StrictTier, beside: GuardedTier) -> None:
        super().__init__(tier, beside.guard)
        self._strict = tier
        self._beside = beside
        self.accepted: dict[bytes, bool] = {}
        """The leases, by token, of which somebody wants to know whether their fill is accepted."""

    @property
    def origin(self) -> GuardedTier:
        """The tier it is a view of."""
        return self._beside

    async def look(self, asks: Sequence[Ask]) -> list[Sight]:
        """As `StrictTier.look`."""
        sights = await self.guard.carry("read", lambda: self._strict.look(asks))
        self.count_read([sight.stored for sight in sights])
        return sights

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        filled = await super().fill(fills)
        for fill, answer in zip(fills, filled, strict=True):
            if fill.basis.token in self.accepted:
                self.accepted[fill.basis.token] = bool(answer)
        return filled


class GuardedMarks:
    """The marks of a `StrictRedis`, behind the same circuit; failures are `TierError`."""

    def __init__(self, strict: StrictRedis, beside: GuardedTier) -> None:
        self._strict = strict
        self._beside: Final = beside

    @property
    def ready(self) -> bool:
        """Whether the epoch was ready when the marks were last seen."""
        return self._strict.ready

    @property
    def answers(self) -> bool:
        """Whether the circuit is closed."""
        return self._beside.circuit == "closed"

    async def found(self, ready: bytes = b"") -> Founded:
        """As `StrictRedis.found`."""
        return await self._beside.guard.carry("mark", lambda: self._strict.found(ready))

    async def in_use(self) -> bool:
        """As `StrictRedis.in_use`."""
        return await self._beside.guard.carry("mark", self._strict.in_use)

    async def mark(self, mark: Mark) -> None:
        """As `StrictRedis.mark`."""
        await self._beside.guard.carry("mark", lambda: self._strict.mark(mark))

    async def unmark(self, mark: Mark, *, delete: bool) -> None:
        """As `StrictRedis.unmark`."""
        await self._beside.guard.carry("unmark", lambda: self._strict.unmark(mark, delete=delete))

    async def marks(self, age: float) -> Marks:
        """As `StrictRedis.marks`."""
        return await self._beside.guard.carry("mark", lambda: self._strict.marks(age))
