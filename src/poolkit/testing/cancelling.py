"""Cancel a scenario at every await of it, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any


class _CancelledAt:
    """Awaits a coroutine, and cancels its task at the n-th time that it waits."""

    def __init__(self, work: Awaitable[object], at: int) -> None:
        self._work = work
        self._at = at
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        waits = 0
        send: Any = None
        failure: BaseException | None = None
        while True:
            try:
                if failure is not None:
                    error, failure = failure, None
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(send)
            except StopIteration:
                return
            waits += 1
            if waits == self._at:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # takes effect at the very wait that is handed on now
            try:
                send = yield waiting
            except BaseException as error:  # noqa: BLE001  handed on to the work
                failure = error


async def cancel_everywhere(
    scenario: Callable[[], Awaitable[object]],
    check: Callable[[int], Awaitable[object]],
    *,
    at_most: int = 500,
) -> int:
    """Run ``scenario()`` again and again, cancelled at its 1st, 2nd, … wait; then ``check(n)``.

    It ends with the run that no cancellation reached; returns how many did. An error of the
    scenario other than the cancellation is raised.
    """
    for at in range(1, at_most + 1):
        cancelled_at = _CancelledAt(scenario(), at)
        task = asyncio.ensure_future(_run(cancelled_at))
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            raise AssertionError(f"cancelled at wait {at}, it failed") from error
        await check(at)
        if not cancelled_at.reached:
            return at - 1
    raise AssertionError(f"the scenario waits more than {at_most} times")


async def _run(work: Awaitable[None]) -> None:
    await work
