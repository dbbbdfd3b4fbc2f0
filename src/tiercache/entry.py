"""What is stored: an `Entry` on its way between tiers, a `Slot` in memory."""

from __future__ import annotations

import enum
from typing import Final, Literal, NamedTuple

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
    """

    __slots__ = (
        "__weakref__",
        "alias",
        "cost",
        "created",
        "expires",
        "key",
        "marks",
        "serve_until",
        "stale_until",
        "table",
        "tags",
        "trusted_until",
        "value",
        "visited",
    )

    def __init__(
        self,
        key: str,
        value: object,
        *,
        created: float,
        refresh_at: float,
        expires: float,
        stale_until: float,
        tags: tuple[str, ...] = (),
        marks: tuple[Mark, ...] = (),
        trusted_until: float = FOREVER,
    ) -> None:
        self.key = key
        self.value = value
        self.created = created
        self.serve_until = min(refresh_at, expires)
        self.expires = expires
        self.stale_until = expires if stale_until == expires else stale_until  # one float, not two
        self.tags = tags
        self.marks = marks
        self.trusted_until = trusted_until
        self.visited = 0
        self.cost = 0
        self.table: dict[object, Slot] | None = None
        self.alias: object = None

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

    @property
    def void(self) -> bool:
        """Whether one of its tags has been invalidated since it was loaded."""
        return any(mark.void for mark in self.marks)

    def retire(self) -> None:
        """Make the slot unreadable for whoever still holds it, and take its alias out."""
        self.serve_until = self.expires = self.stale_until = -FOREVER
        table = self.table
        if table is SHARED:
            self._forget(self._names())
            self.table = self.alias = None
        elif table is not None:
            if table.get(self.alias) is self:
                del table[self.alias]
            self.table = self.alias = None

    def _names(self) -> _Names:
        if self.table is SHARED:
            return self.alias  # type: ignore[return-value]
        return () if self.table is None else ((self.table, self.alias),)

    def _forget(self, names: _Names) -> None:
        for table, alias in names:
            if table.get(alias) is self:
                del table[alias]


_Names = tuple[tuple[dict[object, Slot], object], ...]

SHARED: Final[dict[object, Slot]] = {}
"""Stands in a slot for the tables of several functions."""

SHARING: Final = 4
"""Functions of one key that find its slot by their aliases. What is defined again, as in a
notebook, is another function: its former selves must not pile up."""
