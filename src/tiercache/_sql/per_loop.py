"""One of something for each event loop, closed with its loop."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that another loop is given to close what is its own."""


class Closes(Protocol):
    """What is closed on the loop that made it."""

    async def close(self) -> None:
        """Close; called at most once."""
        ...


C = TypeVar("C", bound=Closes)


class PerLoop(Generic[C]):
    """Makes one ``C`` for each loop that asks.

    It is closed when its loop is shut down (`asyncio.run` and `asyncio.Runner` do that), or by
    `aclose`. A child process after a fork begins with none and leaves those of its parent alone,
    unclosed: what they talk over belongs to the parent.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._held: dict[asyncio.AbstractEventLoop, tuple[C, AsyncGenerator[None, None]]] = {}
        self._inherited: list[object] = []
        _everywhere.add(self)

    def held(self) -> C | None:
        """Return the one of the running loop, if it has one already."""
        held = self._held.get(asyncio.get_running_loop())
        return None if held is None else held[0]

    async def get(self) -> C:
        """Return the one of the running loop."""
        held = self.held()
        if held is not None:
            return held
        loop = asyncio.get_running_loop()
        with self._lock:
            self._held = {each: its for each, its in self._held.items() if not each.is_closed()}
            made = self._make()
            keeper = _close_with_loop(made)
            self._held[loop] = (made, keeper)
        # From its first step on, the loop knows the generator and ends it when it shuts down.
        await anext(keeper)
        return made

    def leave_to_parent(self) -> None:
        """Begin anew, in a child after a fork; nobody holds the lock here."""
        self._inherited.append(self._held)
        self._held = {}
        self._lock = threading.Lock()

    async def aclose(self) -> None:
        """Close what the loops that still run have, each on its own loop."""
        with self._lock:
            held, self._held = self._held, {}
        elsewhere = []
        for loop, (_, keeper) in held.items():
            if loop is asyncio.get_running_loop():
                await keeper.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(_finish(keeper), loop)
                elsewhere.append(asyncio.wrap_future(closing))
        if elsewhere:
            # A loop that stops at this very moment would never answer.
            await asyncio.wait(elsewhere, timeout=CLOSE_TIMEOUT)


_everywhere: weakref.WeakSet[PerLoop[Any]] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(_everywhere):
        each.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


async def _close_with_loop(held: Closes) -> AsyncGenerator[None, None]:
    """Close when the loop ends its generators."""
    try:
        yield
    finally:
        await held.close()


async def _finish(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()
