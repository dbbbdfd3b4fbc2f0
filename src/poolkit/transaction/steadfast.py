"""Waiting for something to its end, whoever wants to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Steadfast(Generic[T]):
    """Awaits ``work`` in the present task, which can be cancelled but not kept from finishing it.

    A cancellation is noted in ``cancelled`` instead of reaching the work. From then on the work has
    ``grace`` seconds; after them ``give_up()`` is called, and if the work does not end by that, it
    gets a `TimeoutError`.

    What the task is given to wait for is what the work waits for, but for its ``cancel`` (`_Shut`).
    `asyncio.shield` does the same with a task of its own, for three more ticks of the loop, and a
    future in between for one more: too much for every COMMIT (measured: a transaction of one
    statement takes a fifth, or a tenth, longer by it).
    """

    def __init__(self, work: Awaitable[T], grace: float, give_up: Callable[[], None]) -> None:
        self._work = work
        self._grace = grace
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: _Shut | None = None
        self._overdue: TimeoutError | None = None
        self.cancelled: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        try:
            while True:
                overdue, self._overdue = self._overdue, None
                try:
                    waiting = steps.send(None) if overdue is None else steps.throw(overdue)
                except StopIteration as end:
                    result: T = end.value
                    return result
                yield from self._wait(waiting)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _wait(self, future: Any) -> Generator[Any, Any, None]:
        """Wait until the future is done or overdue; how it ended, the work will ask for itself."""
        if future is None:  # a bare yield, as of sleep(0)
            try:
                yield None
            except asyncio.CancelledError as error:
                self.note(error)
            return
        future._asyncio_future_blocking = False  # what a task does with what it is handed
        shut = self._waiting = _Shut(future, self)
        try:
            yield shut
        except BaseException:
            if not (future.done() or self._overdue):
                raise
        finally:
            self._waiting = None

    def note(self, error: asyncio.CancelledError) -> None:
        """Take a cancellation."""
        if self.cancelled is None:
            self.cancelled = error
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._grace, self._expire)

    def _expire(self) -> None:
        self._give_up()
        if self._waiting is not None and self._waiting.wake_early():
            self._overdue = TimeoutError("it was given up")


class _Shut:
    """A future that hears of a cancellation and goes on, as a task sees it.

    asyncio takes for a future whatever has ``_asyncio_future_blocking`` and these methods.
    """

    __slots__ = ("_asyncio_future_blocking", "_callback", "_context", "_future", "_steadfast")

    def __init__(self, future: asyncio.Future[Any], steadfast: Steadfast[Any]) -> None:
        self._asyncio_future_blocking = True
        self._future = future
        self._steadfast = steadfast
        self._callback: Callable[[Any], object] | None = None
        self._context: Any = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._future.get_loop()

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        self._callback, self._context = callback, context
        self._future.add_done_callback(callback, context=context)

    def cancel(self, msg: Any = None) -> bool:
        self._steadfast.note(asyncio.CancelledError(*(() if msg is None else (msg,))))
        return True

    def wake_early(self) -> bool:
        """Have the task go on although the future is not done; False if it is."""
        if self._future.done() or self._callback is None:
            return False
        self._future.remove_done_callback(self._callback)
        done = self._future.get_loop().create_future()
        done.set_result(None)
        done.add_done_callback(self._callback, context=self._context)
        return True
