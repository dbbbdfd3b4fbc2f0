"""`LocalBus`: several caches of one process."""

import asyncio
import threading

import pytest

from tests.contracts.bus import BusContract, Recorder, about, listening
from tiercache.bus.local import BACKLOG, LocalBus


class OneBus:
    """The medium is the bus itself."""

    def __init__(self) -> None:
        self._bus = LocalBus()

    def bus(self) -> LocalBus:
        """Return the one bus."""
        return self._bus


class TestLocalBus(BusContract):
    @pytest.fixture
    def medium(self) -> OneBus:
        """One bus object for all."""
        return OneBus()


async def test_a_listener_that_is_too_slow_is_told_of_a_gap() -> None:
    """More events than the backlog holds become one gap, and later events come again."""
    bus = LocalBus()
    async with listening(bus) as recorder:
        gaps = len(recorder.gaps)
        await bus.publish([about("x")] * (BACKLOG + 1))
        await bus.publish([about("after")])
        await recorder.until(lambda: bool(recorder.events))
        assert recorder.names == ["after"]
        assert len(recorder.gaps) == gaps + 1


def test_listeners_on_several_loops_all_hear() -> None:
    """Two threads with a loop each listen, a third one publishes."""
    bus = LocalBus()
    barrier = threading.Barrier(3, timeout=10)
    heard: list[list[str]] = []

    async def listen() -> None:
        async with listening(bus) as recorder:
            await asyncio.to_thread(barrier.wait)
            await recorder.until(lambda: len(recorder.names) == 100)
            heard.append(recorder.names)

    threads = [threading.Thread(target=asyncio.run, args=(listen(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    names = [str(n) for n in range(100)]
    for name in names:
        asyncio.run(bus.publish([about(name)]))
    for thread in threads:
        thread.join(10)
    assert heard == [names, names]


def test_a_listener_whose_loop_died_is_forgotten() -> None:
    """A loop that was closed under its listener hinders nobody who publishes."""
    bus = LocalBus()
    loop = asyncio.new_event_loop()
    recorder = None

    async def start() -> asyncio.Task[None]:
        nonlocal recorder
        recorder = Recorder()
        task = asyncio.create_task(bus.run(recorder))
        await recorder.until_connected()
        return task

    task = loop.run_until_complete(start())
    loop.close()
    asyncio.run(bus.publish([about("a")]))
    assert repr(bus) == "<LocalBus with 0 listeners>"
    task._log_destroy_pending = False  # what this test is about: nobody ended it
    task.get_coro().close()
