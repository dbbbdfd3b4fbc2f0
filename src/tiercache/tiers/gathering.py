"""What is asked of a tier in one turn of a loop travels together, and is answered one by one.

A request that finds nothing under way goes at once, by itself, in the task of who asks: alone it
costs what it would without this. The next one starts a task, and what others ask before that task
runs, which is the next thing that the loop does, goes along. So a crowd costs two operations, two
time limits and two looks at the circuit. While `DEPTH` operations are under way, what is asked
waits for the first of them to end, and then goes together: a crowd that does not keep step is a
crowd, too.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from tiercache.errors import TierError

LIMIT: Final = 256
"""Items in one operation; a request with more of them goes alone."""

DEPTH: Final = 2
"""Operations under way at one moment, for each loop."""

A = TypeVar("A")
R = TypeVar("R")


class _Batch(Generic[A, R]):
    """Requests that go together."""

    __slots__ = ("about", "requests", "room", "task")

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.requests: list[tuple[Sequence[A], asyncio.Future[list[R]]]] = []
        self.room = LIMIT
        self.about: set[object] = set()

    def left(self) -> None:
        """End it if nobody waits any more."""
        if all(future.done() for _, future in self.requests):
            self.task.cancel()


class _Place(Generic[A, R]):
    """What one loop has: the batch that may still grow, and the right to send."""

    __slots__ = ("open", "turns", "under_way")

    def __init__(self) -> None:
        self.open: _Batch[A, R] | None = None
        self.turns = asyncio.Semaphore(DEPTH)
        self.under_way = 0


class Gathering(Generic[A, R]):
    """Collects the requests of one operation, on any number of loops.

    ``act(items)`` does the operation; it answers in order, one answer for each item, or raises
    `TierError`. Who is cancelled leaves the others alone, and is not asked for if he left in time.
    Items of the same ``about`` never go together.
    """

    def __init__(
        self,
        act: Callable[[Sequence[A]], Awaitable[list[R]]],
        about: Callable[[A], object] | None = None,
    ) -> None:
        self._act = act
        self._about = about
        self._places: dict[asyncio.AbstractEventLoop, _Place[A, R]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, items: Sequence[A], size: int | None = None) -> list[R]:
        """Return the answers to these items, or raise an error that is nobody else's.

        ``size`` is what they count for, if it is not their number.
        """
        loop = asyncio.get_running_loop()
        place = self._places.get(loop) or self._place(loop)
        batch = place.open
        if batch is None and not place.under_way:
            place.under_way = 1
            try:
                return await self._act(items)
            finally:
                place.under_way -= 1
        future: asyncio.Future[list[R]] = loop.create_future()
        size = len(items) if size is None else size
        about = None if self._about is None else set(map(self._about, items))
        if batch is None or batch.room < size or (about and not about.isdisjoint(batch.about)):
            batch = self._begin(loop, place)
        batch.requests.append((items, future))
        batch.room -= size
        if about:
            batch.about |= about
        try:
            return await future
        except asyncio.CancelledError:
            batch.left()
            raise

    def _place(self, loop: asyncio.AbstractEventLoop) -> _Place[A, R]:
        for each in [each for each in tuple(self._places) if each.is_closed()]:
            self._places.pop(each, None)
        place = self._places[loop] = _Place()
        return place

    def _begin(self, loop: asyncio.AbstractEventLoop, place: _Place[A, R]) -> _Batch[A, R]:
        batch = place.open = _Batch()
        # It belongs to none of those who ask: its context is empty.
        task = loop.create_task(self._run(place, batch), context=contextvars.Context())
        batch.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return batch

    async def _run(self, place: _Place[A, R], batch: _Batch[A, R]) -> None:
        try:
            async with place.turns:
                if place.open is batch:
                    place.open = None
                place.under_way += 1
                try:
                    await self._answer([each for each in batch.requests if not each[1].done()])
                finally:
                    place.under_way -= 1
        finally:
            if place.open is batch:
                place.open = None
            for _, future in batch.requests:
                future.cancel()  # does nothing to what was answered

    async def _answer(
        self, requests: Sequence[tuple[Sequence[A], asyncio.Future[list[R]]]]
    ) -> None:
        """Do the operation for these requests and tell each its part of the outcome."""
        if not requests:
            return
        items = [item for its, _ in requests for item in its]
        try:
            answers = await self._act(items)
        except TierError as error:
            if len(requests) > 1 and not error.unavailable and not error.skipped:
                # Something was refused: only by itself can each find out whether it was his.
                for request in requests:
                    if not request[1].done():
                        await self._answer([request])
                return
            for at, (_, future) in enumerate(requests):
                if not future.done():
                    future.set_exception(_copy(error) if at else error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, they wait for an answer
            for _, future in requests:
                if not future.done():
                    future.set_exception(error)
            return
        at = 0
        for its, future in requests:
            end = at + len(its)
            if not future.done():
                future.set_result(answers[at:end])
            at = end


def _copy(error: TierError) -> TierError:
    """Return the same failure for another one: a traceback grows where an error is raised."""
    copy = TierError(
        str(error),
        tier=error.tier,
        operation=error.operation,
        unavailable=error.unavailable,
        skipped=error.skipped,
    )
    copy.__cause__ = error.__cause__
    return copy
