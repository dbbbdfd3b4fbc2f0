"""What could not be invalidated yet: kept until it can be, and gone round until then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

_LIMIT = 10_000


class Names(Protocol):
    """What a change or an event names."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags."""
        ...

    @property
    def everything(self) -> bool:
        """Whether it is all there is."""
        ...


class Recovery:
    """Keys and tags that some tier still holds although they were invalidated.

    Reads go round the shared tiers for them. Bounded: past the limit everything counts as
    pending, which costs loads but never a stale read. Called from any thread; each method is
    guarded by the caller's lock where it changes anything.
    """

    __slots__ = ("_everything", "_held", "_keys", "_number", "_tags")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._everything = 0
        self._number = 0
        self._held: dict[object, Names] = {}

    def __bool__(self) -> bool:
        return bool(self._keys or self._tags or self._everything)

    def covers(self, key: str, tags: Iterable[str] | None) -> bool:
        """Whether the key or one of its tags waits; with unknown tags, whether any tag does."""
        # In this order, because a thread may look between two steps of another: what is held
        # becomes a key or tag before it is let go.
        held = self._held
        if held and any(_names(each, key, tags) for each in held.values()):
            return True
        if not (self._keys or self._tags or self._everything):
            return False  # as it mostly is
        if self._everything or key in self._keys:
            return True
        if tags is None:
            return bool(self._tags)
        return any(tag in self._tags for tag in tags)

    def hold(self, holder: object, names: Names) -> None:
        """Cover these as well until the holder lets go; there is nothing to repeat for them."""
        self._held = {**self._held, holder: names}  # `covers` reads it without the lock

    def let_go(self, holder: object) -> None:
        """End a hold."""
        self._held = {each: names for each, names in self._held.items() if each is not holder}

    def add(self, names: Names) -> None:
        """Remember what could not be invalidated."""
        self._number += 1
        self._keys.update(dict.fromkeys(names.keys, self._number))
        self._tags.update(dict.fromkeys(names.tags, self._number))
        if names.everything or len(self._keys) + len(self._tags) > _LIMIT:
            self._everything = self._number
            self._keys.clear()
            self._tags.clear()

    def has(self, names: Names) -> bool:
        """Whether all of this is remembered already."""
        if self._everything:
            return True
        known = all(key in self._keys for key in names.keys)
        return not names.everything and known and all(tag in self._tags for tag in names.tags)

    @property
    def number(self) -> int:
        """How often something was added; what is added from now on has a higher number."""
        return self._number

    def pending(self) -> tuple[int, tuple[str, ...], tuple[str, ...], bool]:
        """Return a number for `done`, the keys, the tags, and whether it is everything."""
        return self._number, tuple(self._keys), tuple(self._tags), bool(self._everything)

    def done(self, number: int) -> None:
        """Forget what was pending when `pending` returned this number; what came later stays."""
        self._keys = {key: n for key, n in self._keys.items() if n > number}
        self._tags = {tag: n for tag, n in self._tags.items() if n > number}
        if self._everything <= number:
            self._everything = 0

    def settle(self, names: Names, number: int) -> None:
        """Forget what a complete invalidation that began at this number has done; later ones stay.

        An invalidation that began earlier than the one that failed may have done its part before
        the change that the failed one tells of.
        """
        if not self:
            return
        if names.everything:
            self.done(number)
            return
        for mine, named in ((self._keys, names.keys), (self._tags, names.tags)):
            for name in named:
                if mine.get(name, number + 1) <= number:
                    del mine[name]


def _names(names: Names, key: str, tags: Iterable[str] | None) -> bool:
    if names.everything or key in names.keys:
        return True
    return bool(names.tags) if tags is None else any(tag in names.tags for tag in tags)
