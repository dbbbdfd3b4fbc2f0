"""Notifications as an async iterator that survives the loss of its connection, and says so."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Self

from poolkit._session import Dirt
from poolkit._statements import Borrow, logger
from poolkit.driver import SupportsListen
from poolkit.errors import AcquireTimeout, ConnectionLost, PoolClosed, PoolError


class Notification(NamedTuple):
    """What was heard on a channel.

    With ``gap`` nothing was: the subscription was interrupted and stands again, and what was sent
    in between is lost.
    """

    channel: str
    payload: str
    gap: bool = False


class Listener:
    """A subscription to one channel, which holds one connection of the pool.

    Iterate over it; ``async with`` subscribes at once and lets go at the end. It ends when the pool
    is closed.
    """

    def __init__(self, channel: str, lend: Callable[[], Awaitable[Borrow]], *, pool: str) -> None:
        self.channel = channel
        self._lend = lend
        self._pool = pool
        self._borrow: Borrow | None = None
        self._heard: deque[Notification] = deque()
        self._news = asyncio.Event()
        self._lost = False
        self._closed = False

    async def __aenter__(self) -> Self:
        """Subscribe."""
        if self._borrow is None:
            await self._subscribe()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Notification:
        """Wait for the next notification, or for the end of a gap."""
        while not self._heard:
            if self._closed:
                raise StopAsyncIteration
            try:
                if self._lost:
                    await self._subscribe_again()
                elif self._borrow is None:
                    await self._subscribe()
                else:
                    await self._wait(self._borrow)
            except PoolClosed:
                await self.aclose()
                raise StopAsyncIteration from None
        return self._heard.popleft()

    async def aclose(self) -> None:
        """Let go of the connection; again is a no-op."""
        self._closed = True
        self._let_go()
        self._news.set()

    def __del__(self) -> None:
        """Give the connection back if nobody did."""
        self._let_go()

    def _let_go(self) -> None:
        borrow, self._borrow = self._borrow, None
        if borrow is not None:
            borrow.end()

    async def _subscribe(self) -> None:
        borrow = await self._lend()
        session = borrow.session
        try:
            if not isinstance(session, SupportsListen):
                raise PoolError(
                    f"the database of pool {self._pool!r} has no notifications: listen() needs "
                    f"PostgreSQL",
                    pool=self._pool,
                )
            borrow.slot.dirt |= Dirt.LISTENING
            # Weakly, so that a listener that is dropped is collected and lets go.
            me = weakref.ref(self)
            await session.listen(
                self.channel,
                lambda payload: _tell(me(), payload),
                lambda: _tell_loss(me(), borrow),
            )
        except BaseException:
            borrow.end()
            raise
        self._borrow = borrow

    async def _subscribe_again(self) -> None:
        self._let_go()
        try:
            await self._subscribe()
        except (AcquireTimeout, ConnectionLost) as error:
            logger.warning(
                "pool %r: cannot listen to %r again yet: %s", self._pool, self.channel, error
            )
            return  # the pool keeps connecting, with growing pauses
        self._lost = False
        self._heard.append(Notification(self.channel, "", gap=True))

    async def _wait(self, borrow: Borrow) -> None:
        """Wait for news; a silence as long as ``keepalive`` is checked for being one."""
        self._news.clear()
        config = borrow.host.config
        try:
            async with asyncio.timeout(config.keepalive):
                await self._news.wait()
        except TimeoutError:
            try:
                await borrow.session.ping(config.housekeeping_timeout)
            except Exception:  # noqa: BLE001  that is what a ping is for
                borrow.session.abort()
                self.note_loss(borrow)

    def hear(self, payload: str) -> None:
        """Take a notification."""
        self._heard.append(Notification(self.channel, payload))
        self._news.set()

    def note_loss(self, borrow: Borrow) -> None:
        """Take note that the connection is gone, if it is the present one."""
        if borrow is self._borrow:
            self._lost = True
            self._news.set()


def _tell(listener: Listener | None, payload: str) -> None:
    if listener is not None:
        listener.hear(payload)


def _tell_loss(listener: Listener | None, borrow: Borrow) -> None:
    if listener is not None:
        listener.note_loss(borrow)
