"""Tag generations of this process: invalidating a tag costs the same for one entry or a million.

Entries and loads under way refer to the `Mark` their tag had when they began. Invalidating the tag
voids that one object; nothing is enumerated, and nothing is forgotten while anybody refers to it
(a bounded table of "tag X was invalidated at time T" would forget, and let a stale fill through).
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

from tiercache.entry import Mark


class Generations:
    """The current mark of every tag that an entry or a load refers to.

    Not locked: the owner calls it under the lock that also guards its entries and flights, so that
    an invalidation removes entries and voids loads in one step.
    """

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: WeakValueDictionary[str, Mark] = WeakValueDictionary()

    def marks(self, tags: Iterable[str]) -> tuple[Mark, ...]:
        """Return the current mark of each tag, made if nobody refers to one yet."""
        current = self._current
        found = []
        for tag in tags:
            mark = current.get(tag)
            if mark is None:
                mark = current[tag] = Mark()
            found.append(mark)
        return tuple(found)

    def void(self, tags: Iterable[str]) -> None:
        """End the current generation of each tag."""
        for tag in tags:
            mark = self._current.pop(tag, None)
            if mark is not None:
                mark.void = True

    def __len__(self) -> int:
        return len(self._current)
