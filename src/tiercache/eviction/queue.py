"""A queue that runs through what stands in it.

Two references in each take 16 bytes, where an ordered dict takes over a hundred, and cost less to
change. What leaves from the middle is taken out at once, so that nothing keeps it alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar


class Linked(Protocol):
    """What can stand in a queue, in one at a time; all three are None while it stands in none."""

    queue: Any
    prev: Any
    next: Any


L = TypeVar("L", bound=Linked)


class Queue(Generic[L]):
    """The first stands next to it on one side, the last on the other: there is no end to check for.

    ``next`` is the first, ``prev`` the last, both the queue itself where ``length`` is 0. All links
    agree whenever somebody else can look: nothing is called while they are changed.
    """

    __slots__ = ("length", "next", "prev")

    def __init__(self) -> None:
        self.next: Any = self
        self.prev: Any = self
        self.length = 0

    def __iter__(self) -> Iterator[L]:
        item = self.next
        while item is not self:
            yield item
            item = item.next

    def append(self, item: L) -> None:
        """Let it stand at the end."""
        last = self.prev
        item.queue = self
        item.prev = last
        item.next = self
        last.next = self.prev = item
        self.length += 1

    def prepend(self, item: L) -> None:
        """Let it stand in front."""
        first = self.next
        item.queue = self
        item.prev = self
        item.next = first
        first.prev = self.next = item
        self.length += 1

    def remove(self, item: L) -> None:
        """Take it out, wherever it stands."""
        before, after = item.prev, item.next
        before.next = after
        after.prev = before
        item.queue = item.prev = item.next = None
        self.length -= 1

    def rotate(self) -> None:
        """Send the first to the end; there is one."""
        item = self.next
        second, last = item.next, self.prev
        if item is not last:
            self.next = second
            second.prev = self
            item.prev = last
            item.next = self
            last.next = self.prev = item

    def substitute(self, old: L, new: L) -> None:
        """Put another in the place of one."""
        before, after = old.prev, old.next
        new.queue, new.prev, new.next = self, before, after
        before.next = after.prev = new
        old.queue = old.prev = old.next = None

    def clear(self) -> None:
        """Take all out."""
        while self.length:
            self.remove(self.next)
