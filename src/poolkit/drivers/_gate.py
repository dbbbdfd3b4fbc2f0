"""The one-writer rule of SQLite as a queue: who wants to write waits its turn, and does not poll.

One gate per database file and process, for all pools, loops and threads; between processes SQLite's
own lock decides.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable


class Ticket:
    """A place in the queue, and when ``granted`` the right to write until `Gate.leave`."""

    __slots__ = ("__weakref__", "_grant", "granted", "owner", "thread")

    def __init__(self, owner: object, thread: int, grant: Callable[[], object]) -> None:
        self.owner = owner
        """The task or thread that will write."""
        self.thread = thread
        """The thread without which it cannot go on; 0 once it ends by itself."""
        self._grant = grant
        self.granted = False

    def grant(self) -> None:
        """Tell the one who waits."""
        self.granted = True
        self._grant()


class Gate:
    """First come, first served; safe from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Ticket] = deque()
        self.holder: Ticket | None = None
        """Who writes now."""

    def request(
        self, owner: object, grant: Callable[[], object], *, urgent: bool = False
    ) -> Ticket:
        """Queue; the ticket comes back granted if nobody writes, else ``grant`` is called later.

        The call comes from the thread of the one who leaves and must not block. ``urgent`` is for
        who blocks an event loop while waiting: those behind may need that loop to go on.
        """
        ticket = Ticket(owner, threading.get_ident(), grant)
        with self._lock:
            if self.holder is None:
                self.holder = ticket
                ticket.granted = True
            else:
                (self._queue.appendleft if urgent else self._queue.append)(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """End writing, or give up the place in the queue; again is a no-op."""
        while True:
            with self._lock:
                if self.holder is not ticket:
                    if ticket in self._queue:
                        self._queue.remove(ticket)
                    return
                heir = self.holder = self._queue.popleft() if self._queue else None
            if heir is None:
                return
            try:
                heir.grant()
            except RuntimeError:
                ticket = heir  # its loop has been closed: the turn goes to the next
            else:
                return


_gates: weakref.WeakValueDictionary[str, Gate] = weakref.WeakValueDictionary()
_gates_lock = threading.Lock()


def gate_of(path: str) -> Gate:
    """Return the gate of a database file."""
    real = os.path.realpath(path)
    with _gates_lock:
        gate = _gates.get(real)
        if gate is None:
            gate = _gates[real] = Gate()
        return gate


def _after_fork() -> None:
    global _gates, _gates_lock
    # The threads that held these are not in the child.
    _gates, _gates_lock = weakref.WeakValueDictionary(), threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
