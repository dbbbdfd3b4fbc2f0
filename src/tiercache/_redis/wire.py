"""One connection that never waits for an answer before it sends what comes next.

Replies come in the order of the commands, so one connection serves any number of calls, and nothing
has to run between a caller and the socket: a call is written in the caller's turn of the loop, and
its future is set where its replies arrive. (A task that reads costs two more turns for each.)

The connection is opened by redis-py (TLS, authentication, database, name); afterwards its transport
has this protocol, and hiredis reads what arrives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol, cast

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import InvalidResponse, NoScriptError, ReadOnlyError

from tiercache._deadline import STALLED
from tiercache._redis.link import Command, Link, Reply
from tiercache._redis.scripts import BY_DIGEST

_NOTHING: Final = object()
# Their annotations say a tuple of one, and nothing; what they take is in their documentation.
_pack: Final = cast("Callable[[Command], bytes]", hiredis.pack_command)
_parse_error: Final = cast("Callable[[str], Exception]", DefaultParser.parse_error)


class Answer(NamedTuple):
    """The replies to a call, refusals among them, and the run of the server that gave them."""

    replies: list[Reply]
    run: bytes


class Call:
    """Commands that belong together, and who waits for their replies.

    ``run`` is the life of the server that they are meant for, None for any.
    """

    __slots__ = ("commands", "future", "operation", "replies", "run", "sent_before")

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
        self.replies: list[Reply] = []
        self.sent_before = False
        """Whether a connection broke under it already."""


class _Repeat(Call):
    """The commands of a call whose scripts the server did not know, behind the scripts."""

    __slots__ = ("loads", "original", "places")

    def __init__(self, original: Call, places: list[int]) -> None:
        again = [original.commands[place] for place in places]
        scripts = [BY_DIGEST[digest] for digest in {command[1] for command in again}]
        loads: list[Command] = [(b"SCRIPT", b"LOAD", script.source) for script in scripts]
        super().__init__([*loads, *again], original.operation, original.run, original.future)
        self.original = original
        self.places = places
        self.loads = len(loads)

    def whole(self) -> list[Reply]:
        """Return the replies to the original call."""
        replies = self.original.replies
        for place, reply in zip(self.places, self.replies[self.loads :], strict=True):
            replies[place] = reply
        return replies


class Owner(Protocol):
    """Whoever made a wire is told what becomes of it."""

    def lost(self, wire: Wire, calls: list[Call], cause: BaseException) -> None:
        """Take back the calls that were not answered; the wire is closed."""
        ...

    def freed(self) -> None:
        """Send what has waited for room."""
        ...

    def demoted(self) -> None:
        """Use none of the connections any more: their server is not what it was."""
        ...


class Wire(asyncio.Protocol):
    """One open connection; used on the loop that made it.

    ``timeout`` is the longest the server may say nothing while something is asked, in seconds.
    """

    def __init__(self, link: Link, owner: Owner, timeout: float) -> None:
        self.run: Final = link.run
        self.load = 0
        """Commands that are not answered yet."""
        self.answered = False
        """Whether it has answered anything yet."""
        self.paused = False
        self._link = link
        self._owner = owner
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._calls: deque[Call] = deque()
        self._noted = False
        """Whether a refusal has come that is not for the caller alone."""
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=self._refusal,
            notEnoughData=_NOTHING,
        )
        self._since = 0.0
        self._due = 0.0
        self._timer: asyncio.Handle | None = None
        self._closed = False
        self._transport = link.hand_over(self)

    def send(self, calls: Iterable[Call]) -> None:
        """Write the commands of all calls, in order."""
        if not self._calls:
            self._since = self._loop.time()
        packed: list[bytes] = []
        for call in calls:
            self._calls.append(call)
            self.load += len(call.commands)
            packed += map(_pack, call.commands)
        self._transport.write(b"".join(packed))
        if self._timer is None:
            self._due = self._since + self._timeout
            self._timer = self._loop.call_at(self._due, self._check)

    @property
    def waiting(self) -> list[asyncio.Future[Answer]]:
        """Whoever waits for an answer."""
        return [call.future for call in self._calls]

    def give_up(self, cause: BaseException) -> None:
        """Close it; the owner is told, now."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        calls, self._calls = list(self._calls), deque()
        self._owner.lost(self, calls, cause)

    async def close(self) -> None:
        """Close the socket without waiting for the server; nobody may be waiting for an answer."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._link.close()

    # -- what the transport says

    def data_received(self, data: bytes) -> None:
        """Hand the replies to those who wait for them."""
        calls, gets = self._calls, self._reader.gets
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOTHING:
                call = calls[0]
                call.replies.append(reply)
                if len(call.replies) == len(call.commands):
                    calls.popleft()
                    self.load -= len(call.commands)
                    self._answer(call)
                    if self._closed:  # given up with what it has just said
                        return
        except Exception as error:  # noqa: BLE001 - bytes that are no replies, or replies to nothing
            broken = ConnectionLost(f"it speaks another protocol: {type(error).__name__}: {error}")
            broken.__cause__ = error
            self.give_up(broken)
            return
        self._since = self._loop.time()
        if not self._closed:
            self._owner.freed()

    def pause_writing(self) -> None:
        """Take no more until the server has read what there is."""
        self.paused = True

    def resume_writing(self) -> None:
        """Take more."""
        self.paused = False
        self._owner.freed()

    def eof_received(self) -> bool:
        """Let the transport close itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what will not be answered."""
        self.give_up(exc or ConnectionLost("the server closed the connection"))

    # -- how

    def _answer(self, call: Call) -> None:
        if self._noted:
            self._noted = False
            if not self._settled(call):
                return
        self.answered = True
        if not call.future.done():
            replies = call.whole() if isinstance(call, _Repeat) else call.replies
            call.future.set_result(Answer(replies, self.run))

    def _settled(self, call: Call) -> bool:
        """Do what a refusal asks for; False if the call is not over with it."""
        for reply in call.replies:
            if isinstance(reply, ConnectionLost):  # LOADING and others: it serves nobody now
                self._calls.appendleft(call)
                self.give_up(reply)
                return False
            if isinstance(reply, ReadOnlyError):
                # A failover: this server is a replica now, and its address may be another's.
                self._owner.demoted()
        if not isinstance(call, _Repeat):
            unknown = [n for n, each in enumerate(call.replies) if isinstance(each, NoScriptError)]
            if unknown:
                self.send((_Repeat(call, unknown),))
                return False
        return True

    def _refusal(self, message: str) -> Exception:
        """Return what redis-py makes of a refusal."""
        error = _parse_error(message)
        self._noted |= isinstance(error, NoScriptError | ReadOnlyError | ConnectionLost)
        return error

    def _check(self) -> None:
        """See whether the server has been silent for too long."""
        self._timer = None
        if self._closed or not self._calls:
            return
        now = self._loop.time()
        if now < self._since + self._timeout:
            self._due = self._since + self._timeout
        elif now - self._due > STALLED:
            # Something held this loop: what has arrived lies unread in the socket.
            self._since, self._due = now, now + self._timeout
        else:
            # Not at once: what arrives in this turn of the loop still counts.
            self._timer = self._loop.call_soon(self._expire, self._since)
            return
        self._timer = self._loop.call_at(self._due, self._check)

    def _expire(self, since: float) -> None:
        if self._since == since:
            self.give_up(TimeoutError())
        else:
            self._check()
