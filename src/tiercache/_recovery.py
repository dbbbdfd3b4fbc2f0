"""What could not be invalidated yet: kept until it can be, and gone round until then."""

from __future__ import annotations

from collections.abc import Iterable

_LIMIT = 10_000


class Recovery:
    """Keys and tags that some tier still holds although they were invalidated.

    Reads go round the shared tiers for them. Bounded: past the limit everything counts as
    pending, which costs loads but never a stale read. Called from any thread; each method is
    guarded by the caller's lock where it changes anything.
    """

    __slots__ = ("_everything", "_keys", "_number", "_tags")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        self._everything = 0
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._keys or self._tags or self._everything)

    def covers(self, key: str, tags: Iterable[str] | None) -> bool:
        """Whether the key or one of its tags waits; with unknown tags, whether any tag does."""
        if not self:
            return False
        if self._everything or key in self._keys:
            return True
        if tags is None:
            return bool(self._tags)
        return any(tag in self._tags for tag in tags)

    def add(self, keys: Iterable[str], tags: Iterable[str], *, everything: bool = False) -> None:
        """Remember what could not be invalidated."""
        self._number += 1
        self._keys.update(dict.fromkeys(keys, self._number))
        self._tags.update(dict.fromkeys(tags, self._number))
        if everything or len(self._keys) + len(self._tags) > _LIMIT:
            self._everything = self._number
            self._keys.clear()
            self._tags.clear()

    def pending(self) -> tuple[int, tuple[str, ...], tuple[str, ...], bool]:
        """Return a number for `done`, the keys, the tags, and whether it is everything."""
        return self._number, tuple(self._keys), tuple(self._tags), bool(self._everything)

    def done(self, number: int) -> None:
        """Forget what was pending when `pending` returned this number; what came later stays."""
        self._keys = {key: n for key, n in self._keys.items() if n > number}
        self._tags = {tag: n for tag, n in self._tags.items() if n > number}
        if self._everything <= number:
            self._everything = 0

    def settle(self, keys: Iterable[str], tags: Iterable[str], *, everything: bool = False) -> None:
        """Forget what somebody has invalidated completely since."""
        if not self:
            return
        if everything:
            self.done(self._number)
            return
        for key in keys:
            self._keys.pop(key, None)
        for tag in tags:
            self._tags.pop(tag, None)
