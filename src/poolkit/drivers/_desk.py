"""What the connections of one loop to one database share: threads, the writers' queue, more."""

from __future__ import annotations

import asyncio
import threading

from poolkit.drivers._crew import Crew, Job
from poolkit.drivers._gate import Gate, Ticket, gate_of
from poolkit.drivers._group import GroupWriter
from poolkit.drivers._lite import SQLiteOptions
from poolkit.drivers._shared import SharedReader
from poolkit.errors import AcquireTimeout, TransactionError


class Desk:
    """What the sessions of one loop share: threads, the gate, the group writer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, options: SQLiteOptions) -> None:
        self.loop = loop
        self.path = path
        self.options = options
        self.gate: Gate = gate_of(path)
        self.crew = Crew(loop, limit=32, name="poolkit-sqlite")
        self.group = GroupWriter(self)
        self.reader = SharedReader(self)
        self.thread = threading.get_ident()
        self._users = 0
        self.sharers = 0

    def enter(self) -> None:
        """Count a connection in."""
        self._users += 1

    def leave(self) -> None:
        """Count a connection out; the threads go with the last one."""
        self._users -= 1
        if self._users == 0:
            for thread in self.crew.dismiss():
                thread.join(1.0)  # it has nothing to do but to end

    def unwanted(self, job: Job) -> None:
        """Close what was opened for somebody who has left meanwhile."""
        if job.future.cancelled():
            if job.result is not None:
                job.result.close()
            self.leave()


class SharedDesk:
    """What one pool sees of the connections that all callers of a loop share."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._closed = False
        self.execute = desk.group.execute
        self.fetch = desk.reader.fetch
        desk.sharers += 1

    async def close(self) -> None:
        """Close them if this is the last pool that used them; to be repeated if cancelled."""
        desk = self._desk
        if not self._closed:
            self._closed = True
            desk.sharers -= 1
        if not desk.sharers:
            await desk.group.close()
            await desk.reader.close()


async def pass_gate(desk: Desk) -> Ticket:
    """Wait for one's turn to write."""
    gate, loop, me = desk.gate, desk.loop, asyncio.current_task()
    refuse_to_wait_for_oneself(gate, me, desk.path)
    turn: asyncio.Future[None] = loop.create_future()
    ticket = gate.request(me, lambda: _tell(loop, turn))
    if ticket.granted:
        return ticket
    try:
        async with asyncio.timeout(desk.options.writer_timeout):
            await turn
    except BaseException as error:
        gate.leave(ticket)
        if isinstance(error, TimeoutError):
            raise AcquireTimeout(
                f"the writer of the SQLite database {desk.path!r} did not come free in "
                f"{desk.options.writer_timeout:g} s: keep transactions short, or raise "
                f"writer_timeout",
                timeout=desk.options.writer_timeout,
            ) from error
        raise
    return ticket


def refuse_to_wait_for_oneself(gate: Gate, me: object, path: str) -> None:
    """Refuse what could only wait for ever: the task has a transaction open for writing."""
    holder = gate.holder
    if holder is not None and me is not None and holder.owner is me:
        raise TransactionError(
            f"this task has a transaction open that writes to {path!r}, and SQLite has one writer: "
            f"use that transaction (current_transaction()), or a savepoint in it"
        )


def _tell(loop: asyncio.AbstractEventLoop, turn: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(lambda: None if turn.done() else turn.set_result(None))
