"""Threads that do blocking work for an event loop, cheaply when it is short.

The hops between loop and thread cost more than a point read of SQLite. So one thread does the work
of all, one job after another, and many results wake the loop once. Only when a job takes long, and
others queue behind it, does a second thread come to help; it leaves when there is nothing to do.
The threads are daemons: they end with the process, and with `Crew.dismiss`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

_PATIENCE = 0.002
"""Seconds without progress after which a helper comes."""
_AT_ONCE = 128
"""Results that wake the loop even though there is more to do."""


class Round(Protocol):
    """What jobs share that one thread does in a row."""

    def end(self) -> None:
        """Let go of it. Must not raise."""
        ...


class Rounds(Protocol):
    """A kind of work that costs less when several jobs are done in a row."""

    def begin(self, several: bool) -> Round:
        """Begin one, after everything that will be done in it was asked for."""
        ...


class Job:
    """One piece of work; ``landed`` is called on the loop when it is over, come what may."""

    __slots__ = (
        "cancelled", "error", "future", "landed", "number", "result", "round", "rounds", "work",
    )  # fmt: skip

    def __init__(
        self,
        work: Callable[[Job], Any],
        future: asyncio.Future[Any],
        landed: Callable[[Job], None] | None,
        rounds: Rounds | None,
        number: int,
    ) -> None:
        self.work = work
        self.future = future
        self.landed = landed
        self.rounds = rounds
        self.number = number
        """How many were submitted before it, and itself."""
        self.round: Any = None
        """What it shares with others, if it is of a kind that does."""
        self.cancelled = False
        """Set by whoever no longer wants it; the work looks at it where it can."""
        self.result: Any = None
        self.error: BaseException | None = None


class Crew:
    """The threads of one loop, at most ``limit`` of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit: int, name: str) -> None:
        self._loop = loop
        self._limit = limit
        self._name = name
        self._jobs: deque[Job] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        """Rung for every thread that may be asleep; False asks it to leave."""
        self._ringing = False
        self._done: deque[Job] = deque()
        self._waking = False
        self._outstanding = 0
        self._submitted = 0
        self._started = 0
        self._finished = 0
        self._threads: set[threading.Thread] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._seen = -1

    def submit(
        self,
        work: Callable[[Job], Any],
        landed: Callable[[Job], None] | None = None,
        rounds: Rounds | None = None,
    ) -> Job:
        """Have ``work(job)`` done in a thread; its result or error arrives in ``job.future``."""
        self._submitted += 1
        job = Job(work, self._loop.create_future(), landed, rounds, self._submitted)
        self._jobs.append(job)
        self._outstanding += 1
        if self._outstanding == 1:
            self._ring()
        elif not self._ringing:
            self._ringing = True
            self._loop.call_soon(self._ring)  # once for all that is submitted in this tick
        if self._outstanding > 1 and self._watch is None:
            self._seen = self._finished
            self._watch = self._loop.call_later(_PATIENCE, self._look)
        return job

    def _ring(self) -> None:
        self._ringing = False
        if not self._threads:
            self._hire(self._serve)
        self._bell.put(True)

    def dismiss(self) -> list[threading.Thread]:
        """Let the threads end when the work is done; return them."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        threads = list(self._threads)
        for _ in threads:
            self._bell.put(False)
        return threads

    def _hire(self, target: Callable[[], None]) -> None:
        self._started += 1
        thread = threading.Thread(target=target, name=f"{self._name}-{self._started}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _look(self) -> None:
        """See whether the work goes on; if not, and there is more of it, get help."""
        self._watch = None
        self._deliver()  # what is done does not wait for what is not
        if self._outstanding <= 1:
            return
        stuck, self._seen = self._seen == self._finished, self._finished
        if stuck and len(self._threads) < self._limit and self._jobs:
            self._hire(self._help)
        self._watch = self._loop.call_later(_PATIENCE, self._look)

    # -- in the threads -----------------------------------------------------------------------

    def _serve(self) -> None:
        while self._bell.get():
            self._work_off()
        self._threads.discard(threading.current_thread())

    def _help(self) -> None:
        self._work_off()
        self._threads.discard(threading.current_thread())

    def _work_off(self) -> None:
        """Do what there is; jobs of one kind in one round, as far as they were there when it began.

        What was asked for later may rely on what has happened since: it gets a new round.
        """
        kind: Rounds | None = None
        round_: Round | None = None
        asked_for = 0
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            if round_ is not None and (job.rounds is not kind or job.number > asked_for):
                round_.end()
                round_ = None
            if round_ is None and job.rounds is not None:
                kind, asked_for = job.rounds, self._submitted
                round_ = self._begin(kind, job)
            job.round = round_
            self._do(job)
            if len(self._done) >= _AT_ONCE:
                self._wake()
        if round_ is not None:
            round_.end()
        if self._done:
            self._wake()

    def _begin(self, rounds: Rounds, job: Job) -> Round | None:
        try:
            return rounds.begin(bool(self._jobs))
        except BaseException as error:  # noqa: BLE001  it belongs to the one who waits
            job.error = error
            return None

    def _do(self, job: Job) -> None:
        try:
            if job.error is None:
                job.result = job.work(job)
        except BaseException as error:  # noqa: BLE001  it belongs to the one who waits
            job.error = error
        self._finished += 1
        self._done.append(job)

    def _wake(self) -> None:
        if not self._waking:
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                pass  # the loop was closed meanwhile: nobody waits any more

    def _deliver(self) -> None:
        self._waking = False
        done = self._done
        while done:
            job = done.popleft()
            self._outstanding -= 1
            if job.landed is not None:
                job.landed(job)
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
