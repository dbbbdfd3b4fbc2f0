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

    __slots__ = ("_due", "_loop", "_renewed", "_seconds", "_timeout", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._renewed = False

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        await self._timeout.__aenter__()
        self._due = self._loop.time() + self._seconds
        self._timer = self._loop.call_at(self._due, self._expire)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, traceback)

    def _expire(self) -> None:
        now = self._loop.time()
        if now - self._due > STALLED and not self._renewed:
            self._renewed = True
            self._due = now + self._seconds
            self._timer = self._loop.call_at(self._due, self._expire)
        else:
            # Not at once: whoever has been woken up by now goes first.
            self._timeout.reschedule(now)
