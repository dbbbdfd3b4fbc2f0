"""The bus within one process: for several `Cache` objects that share one of these."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from tiercache.bus.base import Listener, hand_on

BACKLOG: Final = 10_000
"""Events that wait for one listener; beyond that it is told of a gap instead."""


class LocalBus:
    """Events between caches of one process, from any loop and thread, in one order for all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: set[_Box] = set()

    def __repr__(self) -> str:
        return f"<LocalBus with {len(self._boxes)} listeners>"

    @property
    def proven(self) -> float:
        """For ever: nothing gets lost between two objects of one process unnoticed."""
        return float("inf")

    def rides_on(self, tier: object) -> bool:
        """False: no tier knows of it."""
        return False

    async def publish(self, events: Sequence[bytes]) -> None:
        """Put the events into the box of everybody who listens."""
        with self._lock:
            for box in list(self._boxes):
                if not box.put(events):
                    self._boxes.discard(box)

    async def run(self, listener: Listener) -> None:
        """Deliver events until cancelled; begins with a gap, for nothing is known of before."""
        box = _Box(asyncio.get_running_loop())
        with self._lock:
            self._boxes.add(box)
        listener.gap("the bus was joined")
        listener.connected(True)
        try:
            while True:
                await box.filled.wait()
                with self._lock:
                    events, overflowed = box.take()
                if overflowed:
                    listener.gap(f"more than {BACKLOG} events were waiting")
                for data in events:
                    hand_on(data, listener)
        finally:
            with self._lock:
                self._boxes.discard(box)
            listener.connected(False)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of."""


class _Box:
    """What waits for one listener; guarded by the bus' lock."""

    __slots__ = ("_events", "_loop", "_overflowed", "filled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[bytes] = deque()
        self._overflowed = False
        self.filled = asyncio.Event()

    def put(self, events: Sequence[bytes]) -> bool:
        """Add the events and wake the listener; False if its loop is gone."""
        if len(self._events) + len(events) > BACKLOG:
            self._events.clear()
            self._overflowed = True
        else:
            self._events.extend(events)
        try:
            self._loop.call_soon_threadsafe(self.filled.set)
        except RuntimeError:
            return False
        return True

    def take(self) -> tuple[list[bytes], bool]:
        """Empty the box; return what was in it and whether something had to be left out."""
        taken = list(self._events), self._overflowed
        self._events.clear()
        self._overflowed = False
        self.filled.clear()
        return taken
