"""Who asks: `drive`, and the two kinds of callers."""

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from tiercache._flight import Flight, Flights, Load
from tiercache._portal import Portal
from tiercache.callers import TaskCaller, ThreadCaller, drive


def test_drive_runs_what_never_waits() -> None:
    """A coroutine whose awaitables complete at once is run to its end, without a loop."""

    async def inner() -> int:
        return 1

    async def outer() -> int:
        return await inner() + await inner()

    assert drive(outer()) == 2


def test_drive_passes_errors_on() -> None:
    """What the coroutine raises is raised."""

    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        drive(fail())


def test_drive_refuses_to_wait() -> None:
    """A coroutine that would have to wait is ended, and the caller is told."""
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            ended.append(1)

    with pytest.raises(RuntimeError, match="only a loop can wait for"):
        drive(wait())
    assert ended == [1]


@pytest.fixture
def thread_caller() -> Any:
    """A caller that blocks."""
    portal = Portal("callers")
    yield ThreadCaller(Flights(threading.RLock()), portal)  # type: ignore[misc]
    portal.close()


def test_a_thread_calls_its_loader_itself(thread_caller: ThreadCaller) -> None:
    """A thread calls the loader; what that returns as an awaitable runs on the cache's loop."""

    def here(x: int) -> tuple[int, str]:
        return x, threading.current_thread().name

    async def there(x: int) -> tuple[int, str]:
        return here(x)

    class Later:
        def __await__(self) -> Any:
            return there(3).__await__()

    assert drive(thread_caller.call(here, 1)) == (1, threading.current_thread().name)
    assert drive(thread_caller.call(there, 2)) == (2, "tiercache-callers")
    assert drive(thread_caller.call(Later)) == (3, "tiercache-callers")


async def test_a_task_awaits_its_loader() -> None:
    """A task awaits what the loader returns if it can be awaited."""
    caller = TaskCaller(Flights(threading.RLock()))

    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    def future() -> Awaitable[str]:
        return asyncio.ensure_future(later())

    assert [await caller.call(each) for each in (later, future, lambda: "now")] == [
        "later",
        "later",
        "now",
    ]


async def test_a_thread_inside_a_loop_joins_no_loop(thread_caller: ThreadCaller) -> None:
    """Who blocks a loop never waits for a load that runs on one; another thread may."""
    on_a_loop, in_a_thread = Load([Flight("a", (), (), 0.0)]), Load([Flight("b", (), (), 0.0)])
    on_a_loop.loop = asyncio.get_running_loop()
    assert not thread_caller.may_join(on_a_loop)
    assert thread_caller.may_join(in_a_thread)
    assert await asyncio.to_thread(thread_caller.may_join, on_a_loop)


async def test_shielded_work_outlives_its_caller() -> None:
    """What is shielded goes to its end when the caller is cancelled, and closing waits for it."""
    caller = TaskCaller(Flights(threading.RLock()))
    go_on, done = asyncio.Event(), []

    async def work() -> None:
        await go_on.wait()
        done.append(1)

    task = asyncio.create_task(caller.shielded(work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    asyncio.get_running_loop().call_soon(go_on.set)
    await caller.settle(10)
    assert done == [1]


async def test_settling_cancels_loads_and_gives_up_in_time() -> None:
    """Closing cancels loads, and does not wait for ever for a write that hangs."""
    caller = TaskCaller(Flights(threading.RLock()))
    load = Load([Flight("k", (), (), 0.0)])
    caller.launch(load, asyncio.Event().wait(), behind=False)  # type: ignore[arg-type]
    hanging = asyncio.create_task(caller.shielded(asyncio.Event().wait))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await caller.settle(0.01)
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert load._task is not None
    assert load._task.cancelled()
