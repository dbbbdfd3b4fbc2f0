"""Who is asking: a task on its own loop, or a thread that blocks.

There is one slow path, written as coroutines. A task awaits them; for a thread every awaitable that
they meet completes at once (it blocks inside), so `drive` runs the same coroutines without a loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal, Protocol, TypeVar

from tiercache._flight import Flight, Flights, Load
from tiercache._portal import Portal
from tiercache.bus.base import Bus
from tiercache.tiers.guarded import GuardedTier

T = TypeVar("T")
Operation = Literal["read", "look", "lease", "release", "fill", "invalidate", "clear", "ping"]


class Caller(Protocol):
    """How one caller reaches tiers, runs loaders and waits."""

    async def ask(self, tier: GuardedTier, operation: Operation, *arguments: Any) -> Any:
        """Run an operation of a tier."""
        ...

    async def publish(self, bus: Bus, events: list[bytes]) -> None:
        """Send events."""
        ...

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a loader, and await what it returns if that is awaitable."""
        ...

    def lead(self, load: Load) -> None:
        """Note that the caller carries the load itself, for now."""
        ...

    def launch(self, load: Load, work: Coroutine[Any, Any, None], *, behind: bool) -> None:
        """Start a load; ``behind`` asks that the caller need not run it itself."""
        ...

    async def wait(self, flight: Flight, timeout: float | None) -> bool:
        """Wait for a flight; False when the time is over first."""
        ...

    def may_join(self, load: Load) -> bool:
        """Whether waiting for the load cannot block what it runs on."""
        ...

    async def shielded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end even if the caller is cancelled meanwhile."""
        ...


class TaskCaller:
    """A task: requests run on its own loop, loads in tasks of their own."""

    __slots__ = ("_acts", "_flights", "_loads")

    def __init__(self, flights: Flights) -> None:
        self._flights = flights
        self._loads: set[asyncio.Task[Any]] = set()
        self._acts: set[asyncio.Task[Any]] = set()

    def ask(
        self, tier: GuardedTier, operation: Operation, *arguments: Any
    ) -> Coroutine[Any, Any, Any]:
        """Return the operation, to be awaited on this loop."""
        return getattr(tier, operation)(*arguments)  # type: ignore[no-any-return]

    async def publish(self, bus: Bus, events: list[bytes]) -> None:
        """Await the publication on this loop."""
        await bus.publish(events)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Await the loader."""
        result = function(*arguments)
        return await result if inspect.isawaitable(result) else result

    def lead(self, load: Load) -> None:
        """Note that this task carries the load."""
        load.occupy(asyncio.get_running_loop())

    def launch(self, load: Load, work: Coroutine[Any, Any, None], *, behind: bool) -> None:
        """Start a task; it lives until it is done or nobody waits for it."""
        _own(load.start(work), self._loads)

    async def wait(self, flight: Flight, timeout: float | None) -> bool:
        """Wait in this task."""
        return await self._flights.wait(flight, timeout)

    def may_join(self, load: Load) -> bool:
        """Waiting in a task blocks nobody."""
        return True

    async def shielded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run in a task of its own that the caller's cancellation does not reach."""
        task = asyncio.get_running_loop().create_task(work())
        _own(task, self._acts)
        return await asyncio.shield(task)

    async def settle(self, timeout: float) -> None:
        """Await what this loop still runs, for closing: cancel loads, finish writes."""
        loads, acts = _here(self._loads), _here(self._acts)
        for load in loads:
            load.cancel()
        if loads or acts:
            _, left = await asyncio.wait(loads | acts, timeout=timeout)
            for late in left:
                late.cancel()


class ThreadCaller:
    """A thread: it runs its loaders itself, and reaches loops through the portal."""

    __slots__ = ("_flights", "_portal")

    def __init__(self, flights: Flights, portal: Portal) -> None:
        self._flights = flights
        self._portal = portal

    async def ask(self, tier: GuardedTier, operation: Operation, *arguments: Any) -> Any:
        """Run the operation in this thread where the tier can, else on the cache's loop."""
        blocking = None if operation == "ping" else tier.blocking  # it has its time limit here
        if blocking is not None:
            return getattr(blocking, operation)(*arguments)
        return self._portal.run(lambda: getattr(tier, operation)(*arguments))

    async def publish(self, bus: Bus, events: list[bytes]) -> None:
        """Publish on the cache's loop."""
        self._portal.run(lambda: _await(bus.publish(events)))

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call the loader here; what it returns as an awaitable runs on the cache's loop."""
        result = function(*arguments)
        return self._portal.run(lambda: _await(result)) if inspect.isawaitable(result) else result

    def lead(self, load: Load) -> None:
        """Note that this thread carries the load."""
        load.occupy()

    def launch(self, load: Load, work: Coroutine[Any, Any, None], *, behind: bool) -> None:
        """Run the load here and now, or in a thread of the cache's own."""
        if not behind:
            load.occupy()
            outer = load.nest()
            try:
                drive(work)
            finally:
                if outer is not None:
                    load.leave(outer)
            return

        def run() -> None:
            load.occupy()
            drive(work)

        self._portal.thread(run)

    async def wait(self, flight: Flight, timeout: float | None) -> bool:
        """Block this thread."""
        return self._flights.wait_blocking(flight, timeout)

    def may_join(self, load: Load) -> bool:
        """A thread that blocks a running loop must not wait for what runs on a loop.

        That loop may be the one it blocks, or one that is blocked in turn waiting for this one.
        """
        return load.loop is None or not _inside_a_loop()

    async def shielded(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run it: nobody can cancel a thread."""
        return await work()


def _own(task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _here(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Return those that run on the running loop, but for the one that asks."""
    loop, asking = asyncio.get_running_loop(), asyncio.current_task()
    return {each for each in tuple(tasks) if each.get_loop() is loop and each is not asking}


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose awaitables all complete at once."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("a blocking call met something that only a loop can wait for")


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
