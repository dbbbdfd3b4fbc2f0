"""Who has what: the books of a pool, without a clock, a loop or a socket.

Every entry into the books returns `Work`, what has now to be done in the world: hand these
connections to those waiters, open so many, close these. Whoever asked does it. The law, after
every call::

    idle + used + connecting == size <= max_size        acquired == released + used

(After `Ledger.resize` to less than what is in use, ``size`` comes down as connections come back.)

``connecting`` counts connections on their way to being usable: being opened, checked or cleaned.
``leaving`` are out of the books but not yet closed in the world; as the server still counts them,
they take room from new ones.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, NamedTuple, TypeVar

from poolkit._session import Reason, Slot

S = TypeVar("S")
W = TypeVar("W")


class Work(NamedTuple, Generic[S, W]):
    """What an entry in the books asks of the world."""

    hand: tuple[tuple[W, Slot[S]], ...] = ()
    open: int = 0
    close: tuple[tuple[Slot[S], Reason], ...] = ()


NOTHING: Work[Any, Any] = Work()
"""What most entries ask for."""


class Ledger(Generic[S, W]):
    """The books of one pool. ``S`` is a session, ``W`` a waiter; neither is looked into."""

    __slots__ = (
        "acquired", "closing", "connecting", "generation", "idle", "leaving", "max_connecting",
        "max_size", "min_size", "released", "suspended", "timeouts", "used", "waiting",
    )  # fmt: skip

    def __init__(self, *, min_size: int, max_size: int, max_connecting: int = 2) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.max_connecting = max_connecting
        """How many may be opened at once for waiters; the floor of ``min_size`` is apart."""
        self.idle: list[Slot[S]] = []
        """The most recently used at the end."""
        self.used: set[Slot[S]] = set()
        self.waiting: deque[W] = deque()
        self.connecting = 0
        self.leaving = 0
        self.generation = 0
        self.acquired = 0
        self.released = 0
        self.timeouts = 0
        self.suspended = False
        self.closing = False

    @property
    def size(self) -> int:
        """Connections in the books."""
        return len(self.idle) + len(self.used) + self.connecting

    def take(self) -> Slot[S] | None:
        """Lend the most recently used idle connection; None if the caller has to queue.

        Nobody is overtaken: while one waits, none is idle, or the pool is suspended.
        """
        if not self.idle or self.suspended or self.closing:
            return None
        slot = self.idle.pop()
        self.used.add(slot)
        self.acquired += 1
        return slot

    def enqueue(self, waiter: W) -> Work[S, W]:
        """Queue a waiter behind all others."""
        self.waiting.append(waiter)
        return self._work()

    def forget(self, waiter: W) -> bool:
        """Take a waiter that gave up out of the queue; False if it was served already."""
        try:
            self.waiting.remove(waiter)
        except ValueError:
            return False
        return True

    def give_back(self, slot: Slot[S]) -> Work[S, W] | None:
        """Take a clean connection back; None if there is nothing to do (the usual case)."""
        self.used.remove(slot)
        self.released += 1
        if (
            self.waiting
            or slot.generation != self.generation
            or self.closing
            or len(self.idle) + len(self.used) + self.connecting >= self.max_size
        ):
            return self._place(slot)
        self.idle.append(slot)
        return None

    def lay_aside(self, slot: Slot[S]) -> None:
        """Take a connection back that has to be cleaned before anybody can have it."""
        self.used.remove(slot)
        self.released += 1
        self.connecting += 1

    def inspect(self, slot: Slot[S]) -> None:
        """Take an idle connection aside to look after it."""
        self.idle.remove(slot)
        self.connecting += 1

    def restore(self, slot: Slot[S]) -> Work[S, W]:
        """Put a connection that was aside back to work."""
        self.connecting -= 1
        return self._place(slot)

    def opened(self, slot: Slot[S]) -> Work[S, W]:
        """Enter a connection that has just been made."""
        self.connecting -= 1
        return self._place(slot)

    def not_opened(self) -> Work[S, W]:
        """Strike out an attempt to connect that was given up."""
        self.connecting -= 1
        return self._work()

    def lost_aside(self, slot: Slot[S], reason: Reason) -> Work[S, W]:
        """Strike out a connection that was aside."""
        self.connecting -= 1
        return self._work(close=(self._leave(slot, reason),))

    def lost_used(self, slot: Slot[S], reason: Reason) -> Work[S, W]:
        """Strike out a connection that a borrower had."""
        self.used.remove(slot)
        self.released += 1
        return self._work(close=(self._leave(slot, reason),))

    def lost_idle(self, slots: list[tuple[Slot[S], Reason]]) -> Work[S, W]:
        """Strike out idle connections."""
        gone = {slot for slot, _ in slots}
        self.idle = [slot for slot in self.idle if slot not in gone]
        return self._work(close=tuple(self._leave(slot, reason) for slot, reason in slots))

    def left(self) -> Work[S, W]:
        """Note that a connection was closed in the world, too."""
        self.leaving -= 1
        return self._work()

    def resize(self, min_size: int, max_size: int) -> Work[S, W]:
        """Set new bounds; what is in use beyond them leaves when it comes back."""
        self.min_size, self.max_size = min_size, max_size
        spare = self.idle[: max(0, self.size - max_size)]
        return self.lost_idle([(slot, Reason.SHRUNK) for slot in spare])

    def recycle(self, reason: Reason = Reason.RECYCLED) -> Work[S, W]:
        """Begin a new generation: idle ones leave now, the others when they come back."""
        self.generation += 1
        return self.lost_idle([(slot, reason) for slot in self.idle])

    def suspend(self) -> None:
        """Hand out nothing until `resume`."""
        self.suspended = True

    def resume(self) -> Work[S, W]:
        """Serve those who queued meanwhile."""
        self.suspended = False
        hand = []
        while self.idle and self.waiting:
            slot = self.idle.pop()
            hand.append(self._lend(slot))
        return self._work(hand=tuple(hand))

    def close(self) -> tuple[list[W], Work[S, W]]:
        """End it: return the waiters to be refused, and the idle connections to be closed."""
        self.closing = True
        refused = list(self.waiting)
        self.waiting.clear()
        return refused, self.lost_idle([(slot, Reason.CLOSED) for slot in self.idle])

    def needed(self) -> bool:
        """Whether one of those being opened still has a purpose: a waiter or the floor."""
        return not self.closing and (
            self.size <= self.min_size or len(self.waiting) >= self.connecting
        )

    def _place(self, slot: Slot[S]) -> Work[S, W]:
        if self.closing:
            return self._work(close=(self._leave(slot, Reason.CLOSED),))
        if slot.generation != self.generation:
            return self._work(close=(self._leave(slot, Reason.RECYCLED),))
        if self.size >= self.max_size:
            return self._work(close=(self._leave(slot, Reason.SHRUNK),))
        if self.waiting and not self.suspended:
            return self._work(hand=(self._lend(slot),))
        self.idle.append(slot)
        return self._work()

    def _lend(self, slot: Slot[S]) -> tuple[W, Slot[S]]:
        self.used.add(slot)
        self.acquired += 1
        return self.waiting.popleft(), slot

    def _leave(self, slot: Slot[S], reason: Reason) -> tuple[Slot[S], Reason]:
        self.leaving += 1
        return slot, reason

    def _work(
        self,
        hand: tuple[tuple[W, Slot[S]], ...] = (),
        close: tuple[tuple[Slot[S], Reason], ...] = (),
    ) -> Work[S, W]:
        wanted = self._wanted()
        return Work(hand, wanted, close) if hand or wanted or close else NOTHING

    def _wanted(self) -> int:
        """How many to open now: the floor at once, beyond it only as fast as they are made."""
        if self.closing:
            return 0
        size = self.size
        room = self.max_size - size - self.leaving
        if room <= 0:
            return 0
        floor = self.min_size - size
        demand = 0
        if self.waiting and not self.suspended:
            demand = min(len(self.waiting), self.max_connecting) - self.connecting
        opening = max(0, min(room, max(floor, demand)))
        self.connecting += opening
        return opening
