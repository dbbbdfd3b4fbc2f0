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

    `asyncio.shield` does the same with a task of its own, for three more ticks of the loop: too
    much for every COMMIT (measured: a transaction of one statement takes a fifth longer by it).
    """

    def __init__(self, work: Awaitable[T], grace: float, give_up: Callable[[], None]) -> None:
        self._work = work
        self._grace = grace
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.cancelled: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        overdue: TimeoutError | None = None
        try:
            while True:
                try:
                    waiting = steps.send(None) if overdue is None else steps.throw(overdue)
                except StopIteration as end:
                    result: T = end.value
                    return result
                overdue = yield from self._wait(waiting)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _wait(self, waiting: Any) -> Generator[Any, Any, TimeoutError | None]:
        """Wait for what the work waits for, behind a future of our own that may be cancelled."""
        if waiting is None:  # a bare yield, as of sleep(0)
            try:
                yield None
            except asyncio.CancelledError as error:
                self._note(error)
            return None
        waiting._asyncio_future_blocking = False  # what a task does with what it is handed
        waiting.add_done_callback(self._wake)
        while not waiting.done():
            self._waiter = self._loop.create_future()
            try:
                yield from self._waiter
            except asyncio.CancelledError as error:
                self._note(error)
            except TimeoutError as error:
                waiting.remove_done_callback(self._wake)
                return error
        return None

    def _note(self, error: asyncio.CancelledError) -> None:
        if self.cancelled is None:
            self.cancelled = error
            self._timer = self._loop.call_later(self._grace, self._expire)

    def _wake(self, _: object) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._give_up()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TimeoutError("it was given up"))
