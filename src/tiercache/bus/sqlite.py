"""The bus in a table of a SQLite file: no server, and nobody who would wake us.

A thread of its own looks many times a second whether anybody has written, and reads the table when
somebody has committed. It looks at the times of the file first, which is the cheapest (0.3 % of a
processor when nobody writes), and asks SQLite (``PRAGMA data_version``) while they are young.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from tiercache._sql import events
from tiercache._sql.events import Record, SqliteEvents, Tail, tail_and_rows
from tiercache._sql.names import Tables
from tiercache._sql.places import SqlitePlace
from tiercache._sql.program import Job, Need
from tiercache._sql.publishing import Carrier, Publisher
from tiercache.bus.base import Listener, hand_on

if TYPE_CHECKING:
    from poolkit.driver import SyncFace

LOOK_EVERY: Final = 0.022
"""Seconds between two looks; half of it is the usual delay of an event."""

YOUNG: Final = 2.0
"""Seconds for which another write may not change the time of the file: some know no fractions."""

HEARTBEAT: Final = 0.5
"""Seconds after which the table is read though nothing seems to have happened."""

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 1.0

PRUNE_EVERY: Final = 10.0

_log = logging.getLogger("tiercache.bus")


class SqliteBus:
    """Events between all caches of one name on one SQLite file.

    ``listener.connected(True)`` is repeated after every look at the table, at least twice a second.
    ``proven`` is when the last such look began, on the clock of `time.monotonic`: everything
    published before has been heard.
    """

    def __init__(
        self, place: SqlitePlace, tables: Tables, namespace: str, *, timeout: float
    ) -> None:
        self._place = place
        self._events = SqliteEvents(tables, namespace)
        self._publisher = Publisher(place, tables, self._events, timeout)
        self._carrier: object = None
        self.proven = float("-inf")

    def __repr__(self) -> str:
        return f"SqliteBus({self._place.address!r})"

    def ride(self, carrier: Carrier) -> None:
        """Have a tier of this database publish, in the transactions of its own deletions."""
        self._publisher.ride(carrier)
        self._carrier = carrier

    def rides_on(self, tier: object) -> bool:
        """Whether the tier publishes together with its deletions."""
        return self._carrier is not None and tier is self._carrier

    async def publish(self, events: Sequence[bytes]) -> None:
        """Write the events."""
        await self._publisher.publish(events)

    async def run(self, listener: Listener) -> None:
        """Deliver events until cancelled; begins with a gap, for nothing is known of before."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        watch = _Watch(self, self._place, self._events, self._publisher, listener, loop)

        def main() -> None:
            try:
                watch.run()
                _call(loop, ended.set_result, None)
            except _Gone:
                pass

        threading.Thread(target=main, name="tiercache-bus", daemon=True).start()
        try:
            while not ended.done():
                await asyncio.wait((ended,), timeout=PRUNE_EVERY)
                await self._prune()
        except asyncio.CancelledError:
            watch.stop()
            await asyncio.wait((ended,))  # its last words to the listener come before that
            raise
        finally:
            watch.stop()

    async def _prune(self) -> None:
        """Remove what is old, if there is any; a reader who missed it sees the hole."""
        try:
            if await self._place.run(Job("prune", self._events.old, Need.READ)):
                await self._place.run(Job("prune", self._events.prune, Need.WRITE))
        except Exception as error:  # noqa: BLE001 - somebody else writes; it can wait
            _log.debug("old events were not removed: %s", error)

    async def aclose(self) -> None:
        """Let go of the connections that `publish` used."""
        await self._publisher.aclose()


class _Watch:
    """What the thread does; whatever the listener is told, it is told on the loop.

    When that loop is closed, `_Gone` ends everything.
    """

    def __init__(
        self,
        bus: SqliteBus,
        place: SqlitePlace,
        dialect: SqliteEvents,
        publisher: Publisher,
        listener: Listener,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._bus = bus
        self._place = place
        self._events = dialect
        self._publisher = publisher
        self._listener = listener
        self._loop = loop
        self._stopping = threading.Event()
        self._face = place.face()
        self._file: SyncFace | None = None
        self._version: object = None
        self._times: object = None
        self._position: Tail | None = None
        self._due = 0.0

    def stop(self) -> None:
        """Have `run` return as soon as it can."""
        self._stopping.set()

    def run(self) -> None:
        """Watch until stopped, or until the loop is gone; survives every failure of the file."""
        delay = FIRST_DELAY
        try:
            while not self._stopping.is_set():
                connected = False
                try:
                    self._join()
                    connected, delay = True, FIRST_DELAY
                    while not self._stopping.is_set():
                        time.sleep(LOOK_EVERY)  # half the price of waking from an event's wait
                        self._look()
                except _Gone:
                    raise
                except Exception as error:  # noqa: BLE001 - it outlives whatever happens to it
                    level = logging.WARNING if connected else logging.DEBUG
                    _log.log(level, "the bus is not connected: %s", error)
                if connected:
                    self._tell(self._listener.connected, False)
                self._stopping.wait(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        finally:
            self._face.close()

    def _join(self) -> None:
        """Catch up until an own probe comes back."""
        self._place.run_here(self._publisher.preparation())
        self._open()
        self._read()
        token = events.probe()
        self._place.run_here(self._publisher.job([token], events.PROBE))
        started = time.monotonic()
        if not any(record.body == token for record in self._read()):
            raise ConnectionError("the own probe did not come back")
        self._prove(started)
        self._tell(self._listener.stirred)

    def _look(self) -> None:
        """See whether anything was committed; if so, or if it is time, read."""
        started = time.monotonic()
        if started < self._due and self._is_quiet():
            return
        if self._face.get() is not self._file:
            raise ConnectionError("the file is another one")
        version = self._ask_version()
        moved = version != self._version
        if moved or started >= self._due:
            if moved:
                self._tell(self._listener.stirred)
            self._version = version  # older than what is read now: never newer
            self._read()
            self._prove(started)

    def _is_quiet(self) -> bool:
        """Whether the file, or its log in WAL mode, has not been written to for a while."""
        for name in (f"{self._place.address}-wal", self._place.address):
            try:
                status = os.stat(name)
            except OSError:
                continue
            times = name, status.st_mtime_ns, status.st_size, status.st_ino
            same, self._times = times == self._times, times
            return same and time.time() - status.st_mtime > YOUNG
        return False

    def _open(self) -> None:
        """Take the file that is there now; another one than before has none of its events."""
        file = self._face.get()
        if file is not self._file:
            self._file = file
            self._position = None
        self._version = self._ask_version()

    def _ask_version(self) -> object:
        assert self._file is not None
        return self._file.fetchval("PRAGMA data_version")

    def _read(self) -> list[Record]:
        """Deliver what is new; return it, probes included."""
        assert self._file is not None
        new: list[Record] = []
        while True:
            number = self._position.number if self._position is not None else 0
            limit = events.AT_ONCE if self._position is not None else 0
            statement = self._events.read(number, limit)
            tail, rows = tail_and_rows(self._file.fetch(statement.sql, *statement.args))
            if tail.stream is None:
                raise ConnectionError("the events were removed")
            why = _gap(self._position, tail, [id for id, _ in rows], limit)
            records = [record for _, record in rows if record is not None]
            full = why is None and len(rows) == limit
            self._position = Tail(tail.stream, rows[-1][0] if full else tail.number)
            told = [record.body for record in records if record.kind == events.EVENT]
            if why is not None or told:
                self._tell(_deliver, self._listener, why, told)
            new += records
            if not full:
                return new

    def _prove(self, started: float) -> None:
        """Say that all that was committed before ``started`` has been told."""
        self._due = started + HEARTBEAT
        self._tell(self._proven, started)

    def _proven(self, started: float) -> None:
        self._bus.proven = started
        self._listener.connected(True)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        """Call on the loop, in this order."""
        _call(self._loop, what, *arguments)


class _Gone(Exception):
    """The loop was closed: nobody listens any more."""


def _call(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(what, *arguments)
    except RuntimeError:
        raise _Gone from None


def _deliver(listener: Listener, gap: str | None, told: Sequence[bytes]) -> None:
    """Tell of a gap first: what comes after it is younger."""
    if gap is not None:
        listener.gap(gap)
    for data in told:
        hand_on(data, listener)


def _gap(position: Tail | None, tail: Tail, numbers: Sequence[int], limit: int) -> str | None:
    """Return why something is missing between the position and the tail, if it is."""
    if position is None:
        return "the bus was joined"
    if tail.stream != position.stream:
        return "the events were lost and have begun anew"
    if tail.number < position.number:
        return "the file is older than it was"
    expected = min(tail.number - position.number, limit)
    first = position.number + 1
    if list(numbers) != list(range(first, first + expected)):
        return "events were removed unread"
    return None
