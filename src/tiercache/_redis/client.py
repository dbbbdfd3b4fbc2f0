"""The connections of one event loop: whatever is asked in one turn of it goes out together.

A call is written at once where nothing is under way, and otherwise with all others of this turn of
the loop; nobody waits for the answers of others before it is sent. So a thousand concurrent calls
need one connection; another one is opened when `BATCH` commands wait for their answers on each that
is there, and when there may be no more, calls wait for room.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from redis.exceptions import ConnectionError as ConnectionLost

from tiercache._deadline import Deadline
from tiercache._redis.address import Address
from tiercache._redis.failures import tier_error
from tiercache._redis.link import Command, Link
from tiercache._redis.wire import Answer, Call, Wire

__all__ = ["BATCH", "Answer", "Client", "RunChanged"]

BATCH: Final = 1024
"""Commands on their way on one connection; a call with more of them goes alone."""

_log = logging.getLogger("tiercache.redis")


class RunChanged(Exception):
    """The call was meant for another life of the server and was not sent."""

    def __init__(self, run: bytes) -> None:
        super().__init__("the server is another one, or was started anew")
        self.run = run


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
        self._queue: deque[Call] = deque()
        self._wires: list[Wire] = []
        self._retired: set[Wire] = set()
        """No more calls are sent on these; closed when the last was answered."""
        self._spent: list[Wire] = []
        """Broken ones that redis-py has not let go of yet."""
        self._flushing = False
        self._connecting: asyncio.Task[None] | None = None
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
        self._queue.append(Call(commands, operation, run, future))
        if not self._flushing:
            if self._wires and not self._wires[0].load:
                self._flush()  # nothing is under way that it could travel with
            else:
                self._flushing = True
                self._loop.call_soon(self._flush, context=self._context)
        return future

    async def aclose(self) -> None:
        """Let calls under way finish, within the timeout, and close every connection."""
        await self._lifetime.aclose()

    # -- what a wire tells

    def lost(self, wire: Wire, calls: list[Call], cause: BaseException) -> None:
        """Send again, once, what an old connection left unanswered; else tell who waits."""
        if wire in self._wires:
            self._wires.remove(wire)
        self._retired.discard(wire)
        self._spent.append(wire)
        # The server closed it while it was idle, or restarts. Everything may be sent twice: what
        # the old connection carried arrives before the new one's first word, or never, so a lease
        # that comes twice has come twice before its load begins.
        retry = wire.answered and not isinstance(cause, TimeoutError)
        again = [call for call in calls if retry and not call.sent_before]
        self._fail([call for call in calls if not retry or call.sent_before], cause)
        for call in again:
            call.sent_before = True
            call.replies = []
        self._queue.extendleft(reversed(again))
        if isinstance(cause, TimeoutError):
            # Where the network swallowed this connection it has swallowed the others too, at the
            # price of one timeout each.
            for other in [*self._wires, *self._retired]:
                other.give_up(cause)
            self._fail_queue(cause)
        elif not wire.answered:
            self._fail_queue(cause)  # who still waits would find the same
        self.freed()

    def freed(self) -> None:
        """Send what has waited for room."""
        if self._retired:
            for wire in [wire for wire in self._retired if not wire.load]:
                wire.give_up(ConnectionLost("it was not wanted any more"))
        if self._queue and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush, context=self._context)

    def demoted(self) -> None:
        """Use none of the connections that are there for anything new."""
        self._retired.update(self._wires)
        self._wires.clear()

    # -- how

    def _flush(self) -> None:
        self._flushing = False
        queue = self._queue
        while queue:
            wire = next((w for w in self._wires if w.load < BATCH and not w.paused), None)
            if wire is None:
                self._connect_another()
                return
            room = BATCH - wire.load
            batch: list[Call] = []
            while queue and (len(queue[0].commands) <= room or not wire.load + len(batch)):
                call = queue.popleft()
                if call.future.done():
                    continue
                if call.run is not None and call.run != wire.run:
                    call.future.set_exception(RunChanged(wire.run))
                    continue
                room -= len(call.commands)
                batch.append(call)
            if batch:
                wire.send(batch)
            elif queue:  # its next call is too long for what room there is
                self._connect_another()
                return

    def _connect_another(self) -> None:
        """Open one more connection for those who wait, if there may be one."""
        if self._connecting is None and len(self._wires) + len(self._retired) < self._max_links:
            # It belongs to none of those who wait: its context is empty.
            self._connecting = self._loop.create_task(self._connect(), context=self._context)

    async def _connect(self) -> None:
        try:
            async with Deadline(self._timeout):
                await self._bury()
                link = await Link.open(self._address, self._options)
            wire = Wire(link, self, self._timeout)
            self.run = wire.run
            self._wires.append(wire)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            self._fail_queue(error)
        finally:
            self._connecting = None
        self.freed()

    async def _bury(self) -> None:
        spent, self._spent = self._spent, []
        for wire in spent:
            await wire.close()

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.closed = True
            await self._end()

    async def _end(self) -> None:
        waiting = [call.future for call in self._queue]
        for wire in (*self._wires, *self._retired):
            waiting += wire.waiting
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        cause = ConnectionLost("the client was closed")
        self._fail_queue(cause)
        for wire in [*self._wires, *self._retired]:
            wire.give_up(cause)
        self._fail_queue(cause)
        await self._bury()
        # A transport closes its socket in the next turn of the loop, which may be the last.
        await asyncio.sleep(0)

    def _fail_queue(self, cause: BaseException) -> None:
        calls = list(self._queue)
        self._queue.clear()
        self._fail(calls, cause)

    def _fail(self, calls: Sequence[Call], cause: BaseException) -> None:
        for call in calls:
            if not call.future.done():
                error = tier_error(cause, self._address, call.operation)
                error.__cause__ = cause
                call.future.set_exception(error)
