"""Single flight in this process: waiting, telling, leaving, and loads that wait for themselves."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from tiercache._flight import Flight, Flights, Load, Outcome, current_load
from tiercache.errors import LoadCycle


@pytest.fixture
def flights() -> Flights:
    """What waits and tells."""
    return Flights(threading.RLock())


def flight(key: str = "k") -> Flight:
    """Return a flight that belongs to a load of its own."""
    made = Flight(key, (), (), 0.0)
    Load([made])
    return made


async def waiters(of: Flight, count: int) -> None:
    """Return once so many wait."""
    async with asyncio.timeout(10):
        while len(of.waiters) < count:
            await asyncio.sleep(0)


async def test_everybody_is_told(flights: Flights) -> None:
    """Tasks, threads and those who come late get one and the same outcome."""
    one = flight()
    tasks = [asyncio.create_task(flights.wait(one, None)) for _ in range(3)]
    threads = [
        asyncio.create_task(asyncio.to_thread(flights.wait_blocking, one, 20)) for _ in range(2)
    ]
    elsewhere = asyncio.create_task(
        asyncio.to_thread(lambda: asyncio.run(flights.wait(one, None)))  # type: ignore[arg-type]
    )
    await waiters(one, 6)
    flights.finish(one, Outcome(5))
    flights.finish(one, Outcome(6))  # too late
    assert await asyncio.gather(*tasks, *threads, elsewhere) == [True] * 6
    assert one.result() == Outcome(5)
    assert await flights.wait(one, None)
    assert flights.wait_blocking(one, None)


async def test_an_error_is_told_to_everybody(flights: Flights) -> None:
    """A failure is raised as it is, for each who asks."""
    one = flight()
    flights.finish(one, None, ValueError("down"))
    for _ in range(2):
        assert await flights.wait(one, None)
        with pytest.raises(ValueError, match="down"):
            one.result()


async def test_time_is_over_first(flights: Flights) -> None:
    """One who gives up after a while leaves the load to the others."""
    one = flight()
    assert not await flights.wait(one, 0.001)
    assert not flights.wait_blocking(one, 0.001)
    assert one.waiters == []
    assert one.load is not None
    assert not one.load.cancelled
    assert one.fills


async def test_the_last_who_leaves_ends_the_load(flights: Flights) -> None:
    """A load is cancelled when the last who waits for any of its flights is cancelled."""
    first, second = Flight("a", (), (), 0.0), Flight("b", (), (), 0.0)
    load = Load([first, second])
    task = load.start(asyncio.Event().wait())  # type: ignore[arg-type]
    a, b = (asyncio.create_task(flights.wait(each, None)) for each in (first, second))
    await waiters(second, 1)
    a.cancel()
    await asyncio.wait([a])
    assert not load.cancelled
    b.cancel()
    await asyncio.wait([b, task])
    assert task.cancelled()
    assert not first.fills
    assert not second.fills


async def test_a_detached_load_goes_on(flights: Flights) -> None:
    """A load that was told to go on behind its callers is not cancelled with them."""
    one = flight()
    assert one.load is not None
    one.load.detached = True
    waiting = asyncio.create_task(flights.wait(one, None))
    await waiters(one, 1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not one.load.cancelled
    assert one.fills


def test_a_loop_that_was_closed_is_noticed(flights: Flights) -> None:
    """Who waits for a load of a loop that was closed is told that it was abandoned."""
    one = flight()
    assert one.load is not None
    loop = asyncio.new_event_loop()
    loop.close()
    one.load.loop = loop
    assert one.load.dead
    assert flights.wait_blocking(one, None)
    assert one.result() is None


def test_cancelling_from_another_thread() -> None:
    """A load is cancelled from any thread; when its loop is closed there is nothing to do."""
    started, ended = threading.Event(), threading.Event()
    load = Load([Flight("k", (), (), 0.0)])

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def main() -> None:
        await asyncio.wait([load.start(work())])

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(10)
    load.cancel()
    thread.join(10)
    assert ended.is_set()
    load.cancel()
    assert load.dead


def inside(load: Load, work: Callable[[], object]) -> object:
    """Run something as the loader of a load does."""
    token = current_load.set(load)
    try:
        return work()
    finally:
        current_load.reset(token)


def test_a_load_that_waits_for_itself(flights: Flights) -> None:
    """To wait for the own load raises, with the chain of keys."""
    one = flight("a")
    assert one.load is not None
    with pytest.raises(LoadCycle, match="'a' would wait for itself") as caught:
        inside(one.load, lambda: flights.wait_blocking(one, None))
    assert caught.value.chain == ("a", "a")
    assert one.waiters == []


def test_a_circle_of_three(flights: Flights) -> None:
    """So does the wait that would close a circle, however long."""
    a, b, c = flight("a"), flight("b"), flight("c")
    assert a.load
    assert b.load
    assert c.load
    a.load.waits.append(b.load)
    b.load.waits.append(c.load)
    with pytest.raises(LoadCycle) as caught:
        inside(c.load, lambda: flights.wait_blocking(a, None))
    assert caught.value.chain == ("c", "a", "b", "c")


def test_loads_that_wait_for_one_another_in_a_row(flights: Flights) -> None:
    """A chain that is no circle waits, and leaves no trace when it is over."""
    a, b = flight("a"), flight("b")
    assert a.load
    assert not inside(a.load, lambda: flights.wait_blocking(b, 0.001))
    assert a.load.waits == []


def test_who_has_finished_may_wait(flights: Flights) -> None:
    """What a loader started goes on after its load has landed, and may ask for the same key."""
    one, next_ = flight("a"), flight("a")
    assert one.load
    assert next_.load
    next_.load.waits.append(one.load)
    flights.finish(one, Outcome(1))
    assert not inside(one.load, lambda: flights.wait_blocking(next_, 0.001))
