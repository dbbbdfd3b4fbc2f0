"""What every bus promises, as a suite that runs over any of them.

Subclass `BusContract` in a test module and give it a ``medium`` fixture.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import pytest
import pytest_asyncio

from tiercache.bus.base import Bus
from tiercache.errors import TierError
from tiercache.events import Event

PATIENCE = 15.0

B = TypeVar("B", bound=Bus)


class Medium(Protocol):
    """What carries the events, empty when the test begins."""

    def bus(self) -> Bus:
        """Return a bus upon it for one more cache."""
        ...


class Recorder:
    """A listener that writes down what it is told and can be waited for."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.gaps: list[str] = []
        self.log: list[str] = []
        self.is_connected = False
        self.failure: Exception | None = None
        self._changed = asyncio.Event()

    def heard(self, event: Event) -> None:
        """Take one event, or fail once, if the test says so."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        self.events.append(event)
        self._note("heard")

    def gap(self, reason: str) -> None:
        """Take note of a gap."""
        self.gaps.append(reason)
        self._note("gap")

    def stirred(self) -> None:
        """Take note that the outbox may hold something."""
        self._note("stirred")

    def connected(self, connected: bool) -> None:
        """Take note of a connection that came or went; repetitions are not noted."""
        if connected is not self.is_connected:
            self.is_connected = connected
            self._note("connected" if connected else "disconnected")

    def _note(self, what: str) -> None:
        self.log.append(what)
        self._changed.set()

    @property
    def names(self) -> list[str]:
        """The keys of all events, one after the other."""
        return [key for event in self.events for key in event.keys]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, at most `PATIENCE` seconds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_connected(self) -> None:
        """Wait until the bus is there."""
        await self.until(lambda: self.is_connected)


def about(*keys: str, source: str = "0" * 16) -> bytes:
    """Return an encoded event about these keys."""
    return Event(source, keys, at=1.0).encode()


@contextlib.asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[Recorder]:
    """Run a bus with a recorder that is connected, and end it."""
    recorder = Recorder()
    running = asyncio.create_task(bus.run(recorder))
    try:
        await recorder.until_connected()
        yield recorder
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@contextlib.asynccontextmanager
async def joined(bus: B) -> AsyncIterator[tuple[B, Recorder]]:
    """The bus with a listener, closed at the end."""
    try:
        async with listening(bus) as recorder:
            yield bus, recorder
    finally:
        await bus.aclose()


@contextlib.asynccontextmanager
async def trying(bus: Bus) -> AsyncIterator[Recorder]:
    """A listener of a bus that is not expected to connect at once, both ended at the end."""
    recorder = Recorder()
    running = asyncio.create_task(bus.run(recorder))
    try:
        yield recorder
    finally:
        running.cancel()
        await asyncio.wait([running])
        await bus.aclose()


async def is_one_gap(
    bus: Bus, recorder: Recorder, damage: Callable[[], Awaitable[object] | object]
) -> None:
    """Do damage to what carries the events: it is told of, once, and events come again."""
    await bus.publish([about("a")])
    await recorder.until(lambda: bool(recorder.events))
    gaps = len(recorder.gaps)
    done = damage()
    if isinstance(done, Awaitable):
        await done
    await recorder.until(lambda: len(recorder.gaps) > gaps)
    await bus.publish([about("b")])
    await recorder.until(lambda: "b" in recorder.names)
    await recorder.until_connected()
    assert len(recorder.gaps) == gaps + 1


class Pausable(Protocol):
    """A server that can be stopped for a while, as by SIGSTOP."""

    def pause(self) -> None:
        """Stop it."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...


async def sits_out_a_pause(bus: Bus, recorder: Recorder, server: Pausable) -> None:
    """Stop the server: the bus finds out, publishes nothing, and comes back without a gap."""
    gaps = len(recorder.gaps)
    await asyncio.to_thread(server.pause)
    await recorder.until(lambda: not recorder.is_connected)
    with pytest.raises(TierError):
        await bus.publish([about("unknown")])
    await asyncio.to_thread(server.resume)
    await recorder.until_connected()
    await bus.publish([about("b")])
    await recorder.until(lambda: "b" in recorder.names)
    assert len(recorder.gaps) == gaps


Join = Callable[[], Awaitable[tuple[Bus, Recorder]]]


class BusContract:
    """Delivery, order and honesty of a `Bus`."""

    @pytest.fixture
    def medium(self) -> Medium:
        """Return the medium; every subclass overrides this."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def join(self, medium: Medium) -> AsyncIterator[Join]:
        """Return a function that makes one more bus, listened to by a recorder."""
        async with contextlib.AsyncExitStack() as stack:

            async def join() -> tuple[Bus, Recorder]:
                bus = medium.bus()
                stack.push_async_callback(bus.aclose)
                return bus, await stack.enter_async_context(listening(bus))

            yield join

    async def test_everybody_hears_an_event(self, join: Join) -> None:
        """An event comes to every listener as it was sent, the sender's own echo included."""
        (one, here), (_, there) = await join(), await join()
        event = Event("a" * 16, ("k", "ключ"), ("t",), False, "user.renamed", {"id": 1}, False, 5.5)
        await one.publish([event.encode()])
        for recorder in (here, there):
            await recorder.until(lambda recorder=recorder: bool(recorder.events))
            assert recorder.events == [event]

    async def test_events_come_in_the_order_they_were_sent(self, join: Join) -> None:
        """Two thousand events in batches of all sizes arrive once each and in order."""
        (one, _), (_, there) = await join(), await join()
        names = [str(n) for n in range(2000)]
        sent = 0
        while sent < len(names):
            size = sent % 7 + 1
            await one.publish([about(name) for name in names[sent : sent + size]])
            sent += size
        await there.until(lambda: len(there.events) >= len(names))
        assert there.names == names

    async def test_all_listeners_agree_on_the_order(self, join: Join) -> None:
        """Events of several senders come in one order for everybody."""
        (one, here), (two, there) = await join(), await join()
        await asyncio.gather(
            *(
                bus.publish([about(f"{name}{n}")])
                for n in range(50)
                for name, bus in (("a", one), ("b", two))
            )
        )
        for recorder in (here, there):
            await recorder.until(lambda recorder=recorder: len(recorder.events) == 100)
        assert here.names == there.names

    async def test_nothing_is_known_of_the_time_before(self, medium: Medium, join: Join) -> None:
        """Joining is a gap, told before the connection; older events need not come."""
        early = medium.bus()
        await early.publish([about("before")])
        _, recorder = await join()
        assert recorder.log[:2] == ["gap", "connected"]
        await early.aclose()

    async def test_nothing_sent_after_the_connection_is_missed(self, join: Join) -> None:
        """Whoever is told that it is connected hears what is sent from then on."""
        sender, _ = await join()
        for n in range(10):
            _, recorder = await join()
            await sender.publish([about(str(n))])
            await recorder.until(lambda r=recorder, n=n: str(n) in r.names)

    async def test_publishing_nothing_is_nothing(self, join: Join) -> None:
        """An empty batch sends no event."""
        bus, recorder = await join()
        await bus.publish([])
        await bus.publish([about("a")])
        await recorder.until(lambda: bool(recorder.events))
        assert recorder.names == ["a"]

    async def test_what_cannot_be_read_is_a_gap(self, join: Join) -> None:
        """An event of an unknown kind may have been an invalidation; those after it still come."""
        bus, recorder = await join()
        gaps = len(recorder.gaps)
        await bus.publish([b"\xffnot an event", about("a")])
        await recorder.until(lambda: bool(recorder.events))
        assert recorder.names == ["a"]
        assert len(recorder.gaps) == gaps + 1

    async def test_a_listener_that_fails_does_not_stop_the_bus(self, join: Join) -> None:
        """An event that could not be applied becomes a gap, and the next one is delivered."""
        bus, recorder = await join()
        gaps = len(recorder.gaps)
        recorder.failure = RuntimeError("cannot apply this one")
        await bus.publish([about("a"), about("b")])
        await recorder.until(lambda: bool(recorder.events))
        assert recorder.names == ["b"]
        assert len(recorder.gaps) == gaps + 1

    async def test_a_listener_that_leaves_is_told_so_and_misses_nobody(
        self, medium: Medium, join: Join
    ) -> None:
        """Cancelling one `run` disconnects that listener; the others go on, and it may return."""
        (sender, stays) = await join()
        bus = medium.bus()
        async with listening(bus) as leaves:
            pass
        assert leaves.log[-1] == "disconnected"
        await sender.publish([about("a")])
        await stays.until(lambda: stays.names == ["a"])
        assert leaves.names == []
        async with listening(bus) as again:
            await sender.publish([about("b")])
            await again.until(lambda: "b" in again.names)
        await bus.aclose()

    async def test_any_loop_and_thread_may_publish(self, join: Join) -> None:
        """An event from another thread's loop arrives."""
        bus, recorder = await join()

        def send() -> None:
            asyncio.run(bus.publish([about("thread")]))

        thread = threading.Thread(target=send)
        thread.start()
        await recorder.until(lambda: recorder.names == ["thread"])
        await asyncio.to_thread(thread.join)

    async def test_it_rides_on_no_stranger(self, join: Join) -> None:
        """A tier that the bus knows nothing of publishes nothing for it."""
        bus, _ = await join()
        assert not bus.rides_on(object())


class SharedMedium:
    """A medium outside this process: ``bus_on(address, name)`` makes a bus with own connections."""

    def __init__(self, bus_on: Callable[[Any, str], Bus], address: object) -> None:
        self._bus_on = bus_on
        self._address = address

    def bus(self, name: str = "app") -> Bus:
        """Return a bus upon it for one more cache of the name."""
        return self._bus_on(self._address, name)


class SharedBusContract(BusContract):
    """What a `Bus` promises besides if it is outside this process."""

    @pytest.fixture
    def medium(self) -> SharedMedium:
        """Return the medium; every subclass overrides this."""
        raise NotImplementedError

    async def test_caches_of_other_names_hear_nothing(self, medium: SharedMedium) -> None:
        """Every namespace has its own events, and those of the others leave no gap."""
        async with joined(medium.bus()) as (one, here), joined(medium.bus("app2")) as (two, there):
            gaps = len(here.gaps)
            await one.publish([about("a")])
            await two.publish([about("b")])
            await one.publish([about("c")])
            await here.until(lambda: len(here.events) == 2)
            await there.until(lambda: bool(there.events))
            assert (here.names, there.names) == (["a", "c"], ["b"])
            assert len(here.gaps) == gaps

    async def test_an_idle_bus_is_proven_complete_again_and_again(self, join: Join) -> None:
        """Without any event, `proven` moves on and never lies in the future."""
        bus, recorder = await join()
        first, before, rounds = bus.proven, time.monotonic(), 0

        def counted(connected: bool) -> None:
            nonlocal rounds
            rounds += connected
            recorder._note("again")

        recorder.connected = counted  # type: ignore[method-assign]
        await recorder.until(lambda: rounds >= 3)
        assert first < bus.proven <= time.monotonic()
        assert bus.proven > before - 2
