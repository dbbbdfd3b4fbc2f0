"""The bus in a table of PostgreSQL: NOTIFY says that there is something, the table says what.

One connection of its own listens and reads. It listens before it reads, reads at every
notification and at every heartbeat, and each time asks for what its last statement could not see
(`tiercache._sql.events`). So the order in which transactions commit does not matter, a long one
delays nobody else's events, and a notification that got lost costs half a second at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from tiercache._deadline import Deadline
from tiercache._sql import events
from tiercache._sql.events import OUTBOX, Mark, PostgresEvents, Reading, Snapshot
from tiercache._sql.faults import explain
from tiercache._sql.line import Line
from tiercache._sql.names import Tables
from tiercache._sql.places import PostgresPlace
from tiercache._sql.publishing import Carrier, Publisher
from tiercache.bus.base import Listener, hand_on
from tiercache.errors import TierError

HEARTBEAT: Final = 0.5
"""Seconds that a reader waits for a notification before it looks for itself."""

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 1.0

AGAIN: Final = 60.0
"""Seconds of events that are read again after a reconnect; who was away for longer has a gap."""

PRUNE_EVERY: Final = 10.0

_log = logging.getLogger("tiercache.bus")


class _Position(NamedTuple):
    """How far was read: what the last statement saw, when, of which stream on which server."""

    snapshot: Snapshot
    at: float
    mark: Mark
    server: str


class PostgresBus:
    """Events between all caches of one name in one PostgreSQL database.

    ``listener.connected(True)`` is repeated after every round that proved the stream complete, at
    least twice a second. ``proven`` is when the last such round began, on the clock of
    `time.monotonic`: everything published before has been heard.
    """

    def __init__(
        self, place: PostgresPlace, tables: Tables, namespace: str, *, timeout: float
    ) -> None:
        self._place = place
        self._tables = tables
        self._events = PostgresEvents(tables, namespace)
        self._publisher = Publisher(place, tables, self._events, timeout)
        self._carrier: object = None
        self._position: _Position | None = None
        self._delivered: dict[int, None] = {}
        self._timeout = timeout
        self._called = False
        self._stirred = False
        self._complained = False
        self._prune_at = 0.0
        self._settled: Snapshot | None = None
        self.proven = float("-inf")

    def __repr__(self) -> str:
        return f"PostgresBus({self._place.address!r})"

    def ride(self, carrier: Carrier) -> None:
        """Have a tier of this database publish, in the transactions of its own deletions."""
        self._publisher.ride(carrier)
        self._carrier = carrier

    def rides_on(self, tier: object) -> bool:
        """Whether the tier publishes together with its deletions."""
        return self._carrier is not None and tier is self._carrier

    def channel_in(self, address: str) -> str | None:
        """Return what to notify when there are rows in an outbox; None in another database."""
        return self._events.channel if address == self._place.address else None

    async def publish(self, events: Sequence[bytes]) -> None:
        """Write the events."""
        await self._publisher.publish(events)

    async def run(self, listener: Listener) -> None:
        """Deliver events until cancelled; begins with a gap, for nothing is known of before."""
        self._position = None
        self._settled = None
        delay = FIRST_DELAY
        line = self._place.line(self._events.channel, self._heard)
        while True:
            connected = False
            try:
                try:
                    await self._join(line, listener)
                    connected, delay = True, FIRST_DELAY
                    listener.connected(True)
                    listener.stirred()
                    while True:
                        await self._round(line, listener)
                        listener.connected(True)
                finally:
                    await line.close()
            except Exception as error:  # noqa: BLE001 - a bus outlives whatever happens to it
                level = logging.WARNING if connected or self._is_news(error) else logging.DEBUG
                _log.log(level, "the bus is not connected: %s", error)
            finally:
                if connected:
                    listener.connected(False)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def aclose(self) -> None:
        """Let go of the connections that `publish` used."""
        await self._publisher.aclose()

    def _is_news(self, error: Exception) -> bool:
        """Whether this is a refusal, of which nobody has been told; an absence others tell of."""
        told, self._complained = self._complained, True
        return not told and not explain(error, self._tables).unavailable

    def _heard(self, payload: str) -> bool:
        """Take note of a notification; False for what is another cache's."""
        if payload == OUTBOX:
            self._stirred = True
        called = payload == self._events.call
        self._called = self._called or called
        return called or payload in ("", OUTBOX)

    async def _join(self, line: Line, listener: Listener) -> None:
        """Listen, catch up, and see an own probe come back both ways."""
        async with Deadline(self._timeout):
            await self._place.run(self._publisher.preparation())
        await line.open()
        server, position = await self._server(line), self._position
        if position is not None and position.server == server:
            reading = await self._read(line, position.snapshot, position.at - AGAIN)
        else:
            reading = await self._read(line, None)
        self._advance(reading, server, listener, rejoined=True)
        token = events.probe()
        self._called = False
        for statement in self._events.publish([token], events.PROBE):
            await line.ask(statement)
        started = time.monotonic()
        while not self._called:
            left = started + self._timeout - time.monotonic()
            if left <= 0:
                raise self._failure("notifications do not arrive: is there a pooler in between?")
            await line.wait(left)
        started = time.monotonic()
        reading = await self._read(line, reading.snapshot)
        self._advance(reading, server, listener)
        if not any(record.body == token for record in reading.records):
            raise self._failure("the own probe did not come back")
        self.proven = started

    async def _round(self, line: Line, listener: Listener) -> None:
        """Wait a while for a notification, deliver what is new, which proves the rest complete."""
        await line.wait(HEARTBEAT)
        if self._stirred:
            self._stirred = False
            listener.stirred()
        position = self._position
        assert position is not None
        started = time.monotonic()
        reading = await self._read(line, position.snapshot)
        self._advance(reading, position.server, listener)
        self.proven = started
        if started >= self._prune_at:
            await self._prune(line)

    async def _server(self, line: Line) -> str:
        """Ask which server this is, and which line of its history; where that is told."""
        try:
            rows = await line.ask(self._events.server())
        except Exception as error:
            if self._is_refusal(error):
                return ""
            raise
        return str(rows[0][0])

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the server said no to one statement, and the connection is as good as before."""
        return bool(getattr(error, "sqlstate", None)) and not (
            explain(error, self._tables).unavailable
        )

    async def _read(
        self, line: Line, since: Snapshot | None, again: float | None = None
    ) -> Reading:
        return Reading.of(await line.ask(self._events.read(since, again)))

    def _advance(
        self, reading: Reading, server: str, listener: Listener, *, rejoined: bool = False
    ) -> None:
        """Go on to where this reading stands, and tell what it brought.

        The new position is older than the listener's emptying itself, so nothing falls in between.
        """
        if reading.mark is None:
            raise self._failure("the events were removed")
        why = self._gap_at(reading, reading.mark, server, rejoined=rejoined)
        self._position = _Position(reading.snapshot, reading.at, reading.mark, server)
        if why is not None:
            self._delivered.clear()
            self._settled = None
            listener.gap(why)
        for record in reading.records:
            if record.id not in self._delivered:
                self._delivered[record.id] = None
                if record.kind == events.EVENT:
                    hand_on(record.body, listener)
        while len(self._delivered) > events.KEPT:
            del self._delivered[next(iter(self._delivered))]

    def _gap_at(self, reading: Reading, mark: Mark, server: str, *, rejoined: bool) -> str | None:
        """Return why something may be missing between the position and what was read."""
        position = self._position
        if position is None:
            return "the bus was joined"
        if position.server != server:
            return "the database is on another server now"
        if position.mark.stream != mark.stream:
            return "the events were lost and have begun anew"
        if position.mark != mark and not position.snapshot.covers(mark.removed):
            return "events were removed unread"
        if rejoined and reading.at - position.at > AGAIN:
            return "the bus was away for too long"
        return None

    async def _prune(self, line: Line) -> None:
        """Remove what is old and was there `PRUNE_EVERY` ago: whoever is connected has read it."""
        position, settled = self._position, self._settled
        assert position is not None
        removed = position.mark.removed
        if settled is not None and (
            # Not before others who have seen more; a mark from a dump of another server is older.
            settled.covers(removed) or removed.end > position.snapshot.end
        ):
            try:
                rows = await line.ask(self._events.prune(position.mark, settled))
                if rows[0][0] >= events.AT_ONCE:
                    return  # there is more, for the next round
            except Exception as error:
                if not self._is_refusal(error):
                    raise
                _log.debug("old events were not removed: %s", error)
        self._settled = position.snapshot
        self._prune_at = time.monotonic() + PRUNE_EVERY

    def _failure(self, what: str) -> TierError:
        return self._publisher.failure("bus", ConnectionError(what))
