"""Single flight in this process: who loads, who waits, and who is told.

A `Flight` is one key on its way into the cache; a `Load` is one run of the slow path, for one
flight or for a batch of them. Callers wait for flights, from tasks of any loop and from threads.

- A caller that is cancelled leaves; the load is cancelled when nobody waits for any of its flights.
- A load that fails tells everybody who waits, once. A load that was cut off from outside (its
  loop ended, its thread was interrupted) is *abandoned*: those who wait start again.
- A load that would wait for itself, directly or through others, raises `LoadCycle`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

from tiercache.entry import Entry, Mark
from tiercache.errors import LoadCycle

_CHECK = 1.0
"""Seconds after which somebody who waits for another loop looks whether that loop still lives."""


class Outcome(NamedTuple):
    """What a flight brought: a value, and the level it came from (None: the loader)."""

    value: object
    level: str | None = None
    stale: bool = False


class Load:
    """One run of the slow path, its flights, and where it runs."""

    __slots__ = ("_task", "cancelled", "detached", "flights", "looking", "loop", "thread", "waits")

    def __init__(self, flights: list[Flight], *, detached: bool = False) -> None:
        self.flights = flights
        self.detached = detached
        self.cancelled = False
        self.looking = False
        """Whether who leads it looks into a tier by itself: it wants the flight, but waits not."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self.waits: list[Load] = []
        self._task: asyncio.Task[None] | None = None
        for flight in flights:
            flight.load = self

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the work in a task of its own on the running loop."""
        self.loop = asyncio.get_running_loop()
        self.thread = threading.current_thread()
        self._task = self.loop.create_task(work)
        return self._task

    def occupy(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Note that the calling thread, or the calling task of its loop, runs it by itself."""
        self.loop = loop
        self.thread = threading.current_thread()

    def nest(self) -> Load | None:
        """Note that the load of this context, if there is one, waits for this one to run in it."""
        outer = current_load.get()
        if outer is not None:
            with _graph:
                outer.waits.append(self)
        return outer

    def leave(self, outer: Load) -> None:
        """Undo `nest`."""
        with _graph:
            outer.waits.remove(self)

    @property
    def cancelled_itself(self) -> bool:
        """Whether it ended without a result, on this loop, and nobody had asked for that."""
        return not self.cancelled and self.loop is not None and self.loop is _running_loop()

    @property
    def dead(self) -> bool:
        """Whether it can never finish: its loop was closed or its thread has ended."""
        if self.loop is not None and self.loop.is_closed():
            return True
        return self.thread is not None and not self.thread.is_alive()

    def cancel(self) -> None:
        """Cancel its task, from any thread; the thread of a blocking load cannot be stopped."""
        self.cancelled = True
        if self._task is None or self.loop is None:
            return
        try:
            if self.loop is _running_loop():
                self._task.cancel()
            else:
                self.loop.call_soon_threadsafe(self._task.cancel)
        except RuntimeError:  # the loop was closed: there is nothing left to cancel
            pass

    def reaches(self, other: Load) -> list[Load] | None:
        """Return the chain of loads by which this one waits for the other, or None."""
        chains = [[self]]
        seen = {id(self)}
        while chains:
            chain = chains.pop()
            if chain[-1] is other:
                return chain
            for follower in chain[-1].waits:
                if id(follower) not in seen:
                    seen.add(id(follower))
                    chains.append([*chain, follower])
        return None


class Flight:
    """One key on its way in. Registered before the first await of its load: it is L1's token."""

    __slots__ = (
        "began",
        "error",
        "finished",
        "forced",
        "key",
        "load",
        "marks",
        "number",
        "outcome",
        "stale",
        "tags",
        "void",
        "voids_seen",
        "waiters",
    )

    def __init__(
        self, key: str, tags: tuple[str, ...] | None, marks: tuple[Mark, ...], began: float
    ) -> None:
        self.key = key
        self.tags = tags
        self.marks = marks
        self.began = began
        self.void = False
        self.voids_seen = 0
        self.number = 0
        self.forced = False
        """Whether what it brings replaces whatever other loads of the key are about to bring."""
        self.finished = False
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.stale: Entry | None = None
        self.load: Load | None = None
        self.waiters: list[Waiter] = []

    @property
    def fills(self) -> bool:
        """Whether its result may still go into L1."""
        return not self.void and not any(mark.void for mark in self.marks)

    def result(self) -> Outcome | None:
        """Return what it brought, raise what it failed with; None when it was abandoned."""
        if self.error is not None:
            raise self.error
        return self.outcome


class TaskWaiter:
    """A task that waits, on any loop."""

    __slots__ = ("future", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()

    def wake(self) -> None:
        """Let it go on."""
        if self.loop is _running_loop():
            self._set()
            return
        try:
            self.loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # its loop was closed: nobody waits there any more
            pass

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class ThreadWaiter:
    """A thread that waits."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = threading.Event()

    def wake(self) -> None:
        """Let it go on."""
        self.event.set()


Waiter = TaskWaiter | ThreadWaiter

current_load: ContextVar[Load | None] = ContextVar("tiercache_current_load", default=None)
"""The load whose loader is running in this context."""


class Flights:
    """Waiting and telling; the table of flights is `Local`'s, and so is the lock."""

    def __init__(self, lock: threading.RLock) -> None:  # type: ignore[valid-type, unused-ignore]
        self._lock: Any = lock

    def finish(
        self, flight: Flight, outcome: Outcome | None, error: BaseException | None = None
    ) -> None:
        """End a flight and wake everybody; without outcome and error it is abandoned."""
        with self._lock:
            waiters = self.end(flight, outcome, error)
        for waiter in waiters:
            waiter.wake()

    def end(
        self, flight: Flight, outcome: Outcome | None, error: BaseException | None = None
    ) -> Sequence[Waiter]:
        """End a flight under the lock; return whom to wake, once it has been let go."""
        if flight.finished:
            return ()
        flight.outcome, flight.error, flight.finished = outcome, error, True
        waiters = flight.waiters
        if waiters:
            flight.waiters = []
        return waiters

    async def wait(self, flight: Flight, timeout: float | None) -> bool:
        """Wait in a task until the flight has finished; False when the time is over first."""
        load = flight.load
        assert load is not None
        loop = asyncio.get_running_loop()
        waiter = TaskWaiter()
        end = None if timeout is None else loop.time() + timeout
        with _waiting_for(load):
            if not self._enter(flight, waiter):
                return True
            try:
                if end is None and load.loop is loop:
                    await waiter.future
                    return True
                while not flight.finished:
                    left = _CHECK if end is None else min(_CHECK, end - loop.time())
                    if left <= 0:
                        break
                    await asyncio.wait((waiter.future,), timeout=left)
                    self._bury(flight, load)
            except asyncio.CancelledError:
                self.leave(flight, waiter)
                raise
        if not flight.finished:
            self._forget(flight, waiter)
        return flight.finished

    def wait_blocking(self, flight: Flight, timeout: float | None) -> bool:
        """Wait in a thread until the flight has finished; False when the time is over first."""
        if flight.finished:  # as it is for who has run the load itself
            return True
        load = flight.load
        assert load is not None
        waiter = ThreadWaiter()
        left = timeout
        with _waiting_for(load):
            if not self._enter(flight, waiter):
                return True
            try:
                while not waiter.event.wait(_CHECK if left is None else min(_CHECK, left)):
                    self._bury(flight, load)
                    if left is not None:
                        left -= _CHECK
                        if left <= 0:
                            break
            except BaseException:
                self.leave(flight, waiter)
                raise
        if not flight.finished:
            self._forget(flight, waiter)
        return flight.finished

    def _enter(self, flight: Flight, waiter: Waiter) -> bool:
        with self._lock:
            if flight.finished:
                return False
            flight.waiters.append(waiter)
            return True

    def _forget(self, flight: Flight, waiter: Waiter) -> None:
        with self._lock:
            if waiter in flight.waiters:
                flight.waiters.remove(waiter)

    def leave(self, flight: Flight, waiter: Waiter) -> None:
        """Stop waiting; the load ends when nobody is left who wants any of it."""
        self._forget(flight, waiter)
        self.drop_unwanted(flight)

    def drop_unwanted(self, flight: Flight) -> None:
        """Cancel the flight's load if nobody waits for it and it was not told to go on."""
        load = flight.load
        assert load is not None
        with self._lock:
            if load.detached or load.looking or any(each.waiters for each in load.flights):
                return
            for each in load.flights:
                each.void = each.void or not each.finished
        load.cancel()

    def _bury(self, flight: Flight, load: Load) -> None:
        if load.dead:
            for each in load.flights:
                self.finish(each, None)


def _waiting_for(load: Load) -> AbstractContextManager[None]:
    """Note that the load of this context waits for another; `LoadCycle` if that waits for it."""
    waiting = current_load.get()
    if waiting is None or _over(waiting) or _over(load):
        return _NOTHING
    return _edge(waiting, load)


@contextmanager
def _edge(waiting: Load, load: Load) -> Iterator[None]:
    with _graph:
        chain = load.reaches(waiting)
        if chain is not None:
            keys = tuple(each.flights[0].key for each in (waiting, *chain))
            raise LoadCycle(
                f"the load of {keys[0]!r} would wait for itself: {' -> '.join(keys)}; "
                "let one of these functions call the other's __wrapped__",
                chain=keys,
            )
        waiting.waits.append(load)
    try:
        yield
    finally:
        with _graph:
            waiting.waits.remove(load)


def _over(load: Load) -> bool:
    return all(flight.finished for flight in load.flights)


_graph = threading.Lock()
_NOTHING = nullcontext()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
