"""An event loop whose time jumps to the next timer instead of passing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: what it was told to wait is added to the time."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready at once, and let ``timeout`` seconds have passed if nothing is."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the virtual loop would wait for ever: nothing is due any more")
        if not ready and timeout is not None:
            self.now += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that is always at the next thing to happen. For code without threads or servers."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # One ulp of the clock is more than the loop's resolution after long jumps.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._jumping.now


class VirtualClock:
    """The clock of the running `VirtualLoop`, for `Pool(clock=...)`; luck is always the middle."""

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    def luck(self) -> float:
        """Return 0.5."""
        return 0.5


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main()`` in a new virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
