"""The bus on a Redis Stream: events ride on the deletions they tell of, and none is missed unseen.

One connection of its own reads with XREAD BLOCK. Before each read it asks for the tail of the
stream, so that every round proves that what was seen is all there was when the round began.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tiercache._deadline import Deadline
from tiercache._redis import frames, stream
from tiercache._redis.server import Server, refuse
from tiercache._redis.stream import Position
from tiercache.bus.base import Listener, hand_on
from tiercache.errors import TierError

if TYPE_CHECKING:
    from tiercache._redis.link import Command, Link

HEARTBEAT: Final = 0.5
"""Seconds that a read waits for events before it proves anew that the stream is the same one."""

PAUSE: Final = 0.003
"""Seconds between a read that brought events and the next one. The first event after a while is
heard at once; of a stream of them three hundred reads a second bring as many as there are, and each
costs more than what it brings (measured: a third of a process that does nothing but write)."""

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 1.0

_ROWS: Final = 1000

_log = logging.getLogger("tiercache.bus")


class RedisBus:
    """Events between all caches of one name on one Redis server.

    ``listener.connected(True)`` is repeated after every round that proved the stream complete, at
    least twice a second. ``proven`` is when the last such round began, on the clock of
    `time.monotonic`: everything published before has been heard.
    """

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server
        self._stream = frames.Names(namespace).stream
        self._position: Position | None = None
        self.proven = float("-inf")

    def __repr__(self) -> str:
        return f"RedisBus({str(self._server.address)!r})"

    def rides_on(self, tier: object) -> bool:
        """Whether the tier is on the same server: its deletions carry the events."""
        return getattr(tier, "server", None) is self._server

    async def publish(self, events: Sequence[bytes]) -> None:
        """Add the events to the stream."""
        if events:
            answer = await self._server.call([self._entry(events, stream.EVENT)], "publish")
            refuse(answer.replies, self._server, "publish")

    async def run(self, listener: Listener) -> None:
        """Deliver events until cancelled; begins with a gap, for nothing is known of before."""
        self._position = None
        delay = FIRST_DELAY
        while True:
            connected = False
            try:
                link = await self._server.connect()
                try:
                    await self._join(link, listener)
                    connected, delay = True, FIRST_DELAY
                    while True:
                        listener.connected(True)
                        if await self._round(link, listener):
                            await asyncio.sleep(PAUSE)
                finally:
                    await link.close()
            except Exception as error:  # noqa: BLE001 - a bus outlives whatever happens to it
                level = logging.WARNING if connected else logging.DEBUG
                _log.log(level, "the bus is not connected: %s", error)
            finally:
                if connected:
                    listener.connected(False)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def aclose(self) -> None:
        """Let go of the connections that `publish` used."""
        await self._server.aclose()

    async def _join(self, link: Link, listener: Listener) -> None:
        """Catch up until an own probe comes back."""
        probe = os.urandom(frames.TOKEN)
        tail, _ = await self._ask(link, [self._tail(), self._entry([probe], stream.PROBE)])
        self._judge(tail, listener)
        while True:
            started = time.monotonic()
            [rows] = await self._ask(link, [self._read(self._position, 0)])
            if self._deliver(rows, listener, probe):
                self.proven = started
                return
            if rows is None:
                raise TierError("the own probe did not come back", tier="redis", operation="join")

    async def _round(self, link: Link, listener: Listener) -> bool:
        """Prove the stream complete, wait a while for events, deliver them.

        Return whether that were all there are, and some.
        """
        started = time.monotonic()
        commands = [self._tail(), self._read(self._position, HEARTBEAT)]
        tail, rows = await self._ask(link, commands, HEARTBEAT)
        if self._judge(tail, listener):
            self.proven = started
            return False  # what was read continues a position that is no more
        self._deliver(rows, listener)
        if rows is not None and len(rows[0][1]) >= _ROWS:
            return False
        self.proven = started
        return rows is not None

    def _judge(self, tail: Any, listener: Listener) -> bool:
        """Compare the stream's end with the position; begin there anew if they cannot agree.

        The new position is older than the listener's emptying itself, so nothing falls in between.
        """
        found = stream.entries(tail)
        last = found[0] if found else None
        position = self._position
        why = "the bus was joined" if position is None else position.gap_at(last)
        if why is None:
            return False
        self._position = Position.after(last)
        listener.gap(why)
        return True

    def _deliver(self, rows: Any, listener: Listener, probe: bytes | None = None) -> bool:
        """Hand on what was read; True if the probe was in it."""
        seen = False
        for entry in stream.entries(rows[0][1]) if rows is not None else ():
            position = self._position
            why = position.gap_before(entry) if position is not None else None
            self._position = Position.after(entry)
            if why is not None:
                listener.gap(why)
            if entry.field == stream.EVENT:
                hand_on(entry.content, listener)
            seen = seen or (entry.field == stream.PROBE and entry.content == probe)
        return seen

    async def _ask(self, link: Link, commands: Sequence[Command], patience: float = 0.0) -> Any:
        async with Deadline(self._server.timeout + patience):
            replies = await link.exchange(commands)
        refuse(replies, self._server, "bus")
        return replies

    def _tail(self) -> Command:
        return (b"XREVRANGE", self._stream, b"+", b"-", b"COUNT", b"1")

    def _read(self, position: Position | None, patience: float) -> Command:
        block = (b"BLOCK", b"%d" % round(patience * 1000)) if patience else ()
        place = position.place if position is not None else b"0-0"
        return (b"XREAD", b"COUNT", b"%d" % _ROWS, *block, b"STREAMS", self._stream, place)

    def _entry(self, contents: Sequence[bytes], field: bytes) -> Command:
        fresh = os.urandom(frames.TOKEN)
        return stream.publish(self._stream, contents, fresh=fresh, field=field)
