"""A time limit on somebody else's answer that does not blame them when our own loop stood still."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

STALLED: Final = 0.01
"""Seconds that a timer may be late before the loop itself is taken for the culprit."""


class Deadline:
    """``async with Deadline(seconds)``: cancel what is inside when the time is over.

    Raises `TimeoutError` like `asyncio.timeout`, with two differences. What has arrived when the
    time is over still counts: `asyncio.timeout` cancels a task whose answer is there and whose turn
    comes next. And if the timer fires late, because something held the loop, answers may lie unread
    in the sockets: the limit then begins anew, once.
    """

    __slots__ = (
        "_cancelling",
        "_due",
        "_expired",
        "_handle",
        "_loop",
        "_renewed",
        "_seconds",
        "_task",
    )

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._renewed = False
        self._expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a Deadline has to be used inside a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = loop = task.get_loop()
        self._due = loop.time() + self._seconds
        self._handle: asyncio.Handle = loop.call_at(self._due, self._expire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        # A cancellation from outside, at the same moment, goes on: it is not ours to swallow.
        if (
            self._expired
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def _expire(self) -> None:
        now = self._loop.time()
        if now - self._due > STALLED and not self._renewed:
            self._renewed = True
            self._due = now + self._seconds
            self._handle = self._loop.call_at(self._due, self._expire)
        else:
            # Not at once: whoever has been woken up by now goes first.
            self._handle = self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        self._expired = True
        self._task.cancel()
