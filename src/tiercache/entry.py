"""What is stored: an `Entry` on its way between tiers, a `Slot` in memory."""

from __future__ import annotations

import enum
from typing import Any, Final, Literal, NamedTuple

FOREVER: Final = float("inf")


class Missing(enum.Enum):
    """The type of `MISSING`."""

    MISSING = "MISSING"

    def __repr__(self) -> str:
        return "MISSING"

    __str__ = __repr__

    def __bool__(self) -> Literal[False]:
        return False


MISSING: Final = Missing.MISSING
"""What stands for "there is no value", so that a cached None is a value like any other."""


class Entry(NamedTuple):
    """A value with its times, as it travels between tiers.

    Times are seconds since the epoch on the wall clock, because several processes read them;
    ``created`` is the start of the loader call that made the value. ``expires`` and ``stale_until``
    may be infinite, and ``created <= expires <= stale_until``. A tuple, because one is made for
    every hit of a shared tier: a frozen dataclass takes three times as long to make.
    """

    value: object
    created: float
    expires: float
    stale_until: float
    tags: tuple[str, ...] = ()


class Mark:
    """One generation of one tag; void once the tag has been invalidated."""

    __slots__ = ("__weakref__", "void")

    def __init__(self) -> None:
        self.void = False


class Slot:
    """One entry of L1, mutable, read by the hot path.

    Times are seconds of the process' monotonic clock. The hot path serves a slot while
    ``now < serve_until``, which is the earlier of its refresh time and its expiry and is set to
    minus infinity when the slot leaves the table; a hit beyond that goes the slow way, where
    ``expires`` and ``stale_until`` decide. ``visited`` is a small counter of hits that the eviction
    policy resets. ``marks`` are the generations of its tags: one that is void kills the slot.
    ``alias`` is what a decorated function finds the slot by without building its key text, in its
    ``table``; it is taken out together with the slot. Where several functions have one key,
    ``table`` is `SHARED` and ``alias`` a tuple of their tables and aliases.

    Queues of eviction and buckets of expiry run through the slots themselves: ``queue`` is where it
    stands, between ``prev`` and ``next``, and ``bucket_prev`` and ``bucket_next`` are its
    neighbours in its bucket. All are None in a slot that has left, so that it keeps no other alive.

    Most slots have one time, at which they are over, and nothing else to say. What others have
    besides is in `Detailed`, which a call of ``Slot`` makes where there is something: tags, a time
    of refresh before the expiry or of service after it, an end of trust, or ``created``, by which
    copies of several tiers are told apart; where there is one tier, nobody asks for it.
    """

    __slots__ = (
        "alias",
        "bucket_next",
        "bucket_prev",
        "cost",
        "key",
        "marks",
        "next",
        "prev",
        "queue",
        "serve_until",
        "table",
        "value",
        "visited",
    )

    key: str
    value: object
    serve_until: float
    marks: tuple[Mark, ...]
    visited: int
    cost: int
    table: dict[object, Slot] | None
    alias: object
    queue: Any
    prev: Any
    next: Any
    bucket_prev: Any
    bucket_next: Any

    def __new__(
        cls,
        key: str,
        value: object,
        *,
        created: float = -FOREVER,
        refresh_at: float,
        expires: float,
        stale_until: float,
        tags: tuple[str, ...] = (),
        marks: tuple[Mark, ...] = (),
        trusted_until: float = FOREVER,
    ) -> Slot:
        """Make a plain slot, or one with details if there are any."""
        slot: Slot
        if (
            refresh_at >= expires == stale_until
            and not tags
            and trusted_until == FOREVER
            and created == -FOREVER
        ):
            slot = _new(Slot)
            slot.serve_until = expires
        else:
            slot = detailed = _new(Detailed)
            detailed.created = created
            # Where two times are equal, one float stands for both.
            detailed.serve_until = min(expires, refresh_at)
            detailed.expires = expires
            detailed.stale_until = expires if stale_until == expires else stale_until
            detailed.tags = tags
            detailed.trusted_until = trusted_until
        slot.key = key
        slot.value = value
        slot.marks = marks
        slot.visited = 0
        slot.cost = 1
        slot.table = slot.alias = None
        slot.queue = slot.prev = slot.next = slot.bucket_prev = slot.bucket_next = None
        return slot

    @property
    def created(self) -> float:
        """When the loader call that made the value began; minus infinity where nobody asks."""
        return -FOREVER

    @property
    def expires(self) -> float:
        """Until when the value is fresh."""
        return self.serve_until

    @property
    def stale_until(self) -> float:
        """Until when it is of any use."""
        return self.serve_until

    @property
    def tags(self) -> tuple[str, ...]:
        """What it is invalidated by, besides its key."""
        return ()

    @property
    def trusted_until(self) -> float:
        """Until when it needs no bus to vouch for it."""
        return FOREVER

    @property
    def void(self) -> bool:
        """Whether one of its tags has been invalidated since it was loaded."""
        for mark in self.marks:  # noqa: SIM110 - a third of the time of `any`
            if mark.void:
                return True
        return False

    def name(self, table: dict[object, Slot], alias: object) -> None:
        """Let a function's hot path find a new slot; called under the cache's lock."""
        self.table, self.alias = table, alias
        table[alias] = self

    def share(self, table: dict[object, Slot], alias: object) -> None:
        """Let another function's hot path find the slot too; called under the cache's lock.

        Of more than `SHARING` functions the one that was named first forgets it.
        """
        names = self._names()
        if all(each is not table for each, _ in names):
            if len(names) >= SHARING:
                self._forget(names[:1])
                names = names[1:]
            self.table, self.alias = SHARED, (*names, (table, alias))
            table[alias] = self

    def retire(self) -> None:
        """Make the slot unreadable for whoever still holds it, and take its alias out."""
        self.serve_until = -FOREVER
        table = self.table
        if table is SHARED:
            names = self._names()
            self.table = self.alias = None
            self._forget(names)
        elif table is not None:
            alias = self.alias
            self.table = self.alias = None
            other = table.pop(alias, self)
            if other is not self:
                table[alias] = other

    def _names(self) -> _Names:
        if self.table is SHARED:
            return self.alias  # type: ignore[return-value]
        return () if self.table is None else ((self.table, self.alias),)

    def _forget(self, names: _Names) -> None:
        for table, alias in names:
            if table.get(alias) is self:
                del table[alias]


class Detailed(Slot):
    """A slot that is more than plain."""

    __slots__ = ("created", "expires", "stale_until", "tags", "trusted_until")

    created: float
    expires: float
    stale_until: float
    tags: tuple[str, ...]
    trusted_until: float

    def retire(self) -> None:
        """Make the slot unreadable for whoever still holds it, and take its alias out."""
        self.expires = self.stale_until = -FOREVER
        super().retire()


_new: Final = object.__new__

_Names = tuple[tuple[dict[object, Slot], object], ...]

SHARED: Final[dict[object, Slot]] = {}
"""Stands in a slot for the tables of several functions."""

SHARING: Final = 4
"""Functions of one key that find its slot by their aliases. What is defined again, as in a
notebook, is another function: its former selves must not pile up."""
