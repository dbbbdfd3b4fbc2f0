"""The connections of one event loop: whatever is asked in one tick goes out as one pipeline.

A call is put into a queue and a worker task takes as many as wait, so a thousand concurrent calls
need one connection, not a thousand; beyond `max_links` workers, calls wait for the next free one.
The workers are tasks of their own: a caller that is cancelled leaves the others, and the
connection, alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, NamedTuple

from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ReadOnlyError

from tiercache._deadline import Deadline
from tiercache._redis.address import Address
from tiercache._redis.failures import tier_error
from tiercache._redis.link import Command, Link, Reply

BATCH: Final = 1024
"""Commands in one pipeline; a call with more of them goes alone."""

_log = logging.getLogger("tiercache.redis")


class Answer(NamedTuple):
    """The replies to a call, refusals among them, and the run of the server that gave them."""

    replies: list[Reply]
    run: bytes


class RunChanged(Exception):
    """The call was meant for another life of the server and was not sent."""

    def __init__(self, run: bytes) -> None:
        super().__init__("the server is another one, or was started anew")
        self.run = run


class _Call:
    __slots__ = ("commands", "future", "operation", "run")

    def __init__(
        self,
        commands: Sequence[Command],
        operation: str,
        run: bytes | None,
        future: asyncio.Future[Answer],
    ) -> None:
        self.commands = commands
        self.operation = operation
        self.run = run
        self.future = future


class Client:
    """Bounded connections to one server for the loop that made it; used on that loop alone."""

    def __init__(
        self, address: Address, options: Mapping[str, object], *, timeout: float, max_links: int
    ) -> None:
        self._address = address
        self._options = options
        self._timeout = timeout
        self._max_links = max_links
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Call] = deque()
        self._idle: list[Link] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._starting = False
        self._context = contextvars.Context()
        self._lifetime = self._live()
        self.closed = False
        self.run: bytes | None = None

    async def open(self) -> None:
        """Arrange to be closed with the loop, by `asyncio.run` and others like it.

        They finish asynchronous generators before they close a loop; one that is suspended is the
        one way to be told.
        """
        await anext(self._lifetime)

    def call(
        self, commands: Sequence[Command], operation: str, run: bytes | None
    ) -> asyncio.Future[Answer]:
        """Send the commands in order, together with what else is asked now.

        The future raises `TierError`, or `RunChanged` where ``run`` is not the server's.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._queue.append(_Call(commands, operation, run, future))
        self._employ()
        return future

    async def aclose(self) -> None:
        """Let calls under way finish, within the timeout, and close every connection."""
        await self._lifetime.aclose()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.closed = True
            if self._workers:
                await asyncio.wait(self._workers, timeout=self._timeout)
                for worker in self._workers:
                    worker.cancel()
            self._fail(list(self._queue), ConnectionLost("the client was closed"))
            self._queue.clear()
            await self._drop_idle()
            # A transport closes its socket in the next turn of the loop, which may be the last.
            await asyncio.sleep(0)

    def _employ(self) -> None:
        """Start a worker unless one is about to look at the queue, or there are enough."""
        if self._starting or len(self._workers) >= self._max_links:
            return
        self._starting = True
        # No worker belongs to the caller whose turn it happened to be: its context is empty.
        worker = self._loop.create_task(self._work(), context=self._context)
        self._workers.add(worker)
        worker.add_done_callback(self._dismiss)

    def _dismiss(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            _log.error("a Redis worker failed", exc_info=error)
        if self._queue and not self.closed:
            self._employ()

    async def _work(self) -> None:
        """Serve the queue until it is empty or the server fails."""
        link: Link | None = None
        batch: list[_Call] = []
        try:
            while self._queue:
                async with Deadline(self._timeout):
                    reused = link is not None or bool(self._idle)
                    if link is None:
                        link = self._idle.pop() if self._idle else await self._connect()
                    self._starting = False
                    batch = self._take(link.run)
                    try:
                        replies = await self._exchange(link, batch)
                    except (ConnectionLost, OSError):
                        link = None
                        if not reused:
                            raise
                        # The server closed it while it was idle; all others are as old, and
                        # everything that is sent may be sent twice.
                        await self._drop_idle()
                        link = await self._connect()
                        batch = self._still_meant(batch, link.run)
                        replies = await self._exchange(link, batch)
                    batch = []
                if any(isinstance(reply, ReadOnlyError) for reply in replies):
                    # A failover: this server is a replica now, and its address may be another's.
                    await self._drop_idle()
                    break
            else:
                if link is not None and not self.closed:
                    self._idle.append(link)
                    link = None
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            # Who still waits in the queue would find the same; and where the network swallowed this
            # connection it has swallowed the others too, at the price of one timeout each.
            self._fail([*batch, *self._queue], error)
            self._queue.clear()
            await self._drop_idle()
        except BaseException as error:
            self._fail(batch, error)
            raise
        finally:
            self._starting = False
            if link is not None:
                await link.close()

    async def _connect(self) -> Link:
        link = await Link.open(self._address, self._options)
        self.run = link.run
        return link

    def _take(self, run: bytes) -> list[_Call]:
        """Take from the queue what goes into one pipeline."""
        queue = self._queue
        batch: list[_Call] = []
        room = BATCH
        while queue and (not batch or len(queue[0].commands) <= room):
            call = queue.popleft()
            room -= len(call.commands)
            batch.append(call)
        return self._still_meant(batch, run)

    def _still_meant(self, calls: list[_Call], run: bytes) -> list[_Call]:
        meant = []
        for call in calls:
            if call.future.done():
                continue
            if call.run is not None and call.run != run:
                call.future.set_exception(RunChanged(run))
            else:
                meant.append(call)
        return meant

    async def _exchange(self, link: Link, batch: list[_Call]) -> list[Reply]:
        if not batch:
            return []
        replies = await link.exchange([command for call in batch for command in call.commands])
        at = 0
        for call in batch:
            end = at + len(call.commands)
            if not call.future.done():
                call.future.set_result(Answer(replies[at:end], link.run))
            at = end
        return replies

    def _fail(self, calls: Sequence[_Call], cause: BaseException) -> None:
        for call in calls:
            if not call.future.done():
                error = tier_error(cause, self._address, call.operation)
                error.__cause__ = cause
                call.future.set_exception(error)

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for link in idle:
            await link.close()
