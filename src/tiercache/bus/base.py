"""The bus protocol: events out, events in, and an honest word about what may have been missed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from tiercache.events import Event

_log = logging.getLogger("tiercache.bus")


class Listener(Protocol):
    """Who is told; its methods are called on the loop that runs the bus and must not block."""

    def heard(self, event: Event) -> None:
        """Take one event, own echoes included."""
        ...

    def gap(self, reason: str) -> None:
        """Learn that events may have been missed: nothing that L1 holds can be trusted."""
        ...

    def connected(self, connected: bool) -> None:
        """Learn that the bus has come or gone; repeated whenever it has proven itself again."""
        ...

    def stirred(self) -> None:
        """Learn that there may be rows in the outbox that nobody else knows of (`Cache.watch`).

        From a bus in the database that keeps them; may come too often.
        """
        ...


class Bus(Protocol):
    """Carries events between processes to everybody who listens.

    What was published after something else had been published comes after it.
    """

    @property
    def proven(self) -> float:
        """When the last round began that proved nothing was missed, on `time.monotonic`."""
        ...

    async def run(self, listener: Listener) -> None:
        """Deliver events until cancelled; survives every failure of the server by itself."""
        ...

    async def publish(self, events: Sequence[bytes]) -> None:
        """Send encoded events; `TierError` when they cannot be sent. Works on any loop."""
        ...

    def rides_on(self, tier: object) -> bool:
        """Whether the tier publishes the events it is given together with its own deletions."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; ``run`` has been cancelled before."""
        ...


def hand_on(data: bytes, listener: Listener) -> None:
    """Hand on one event; what cannot be read or applied may have been an invalidation."""
    try:
        listener.heard(Event.decode(data))
    except Exception:  # noqa: BLE001 - the bus goes on behind an event that did not
        _log.exception("an event was not applied; everything is taken for invalidated")
        listener.gap("an event could not be applied")
