"""A connection of its own on PostgreSQL, which hears notifications and asks questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tiercache._deadline import Deadline
from tiercache._sql.program import Row, Statement

if TYPE_CHECKING:
    from poolkit import Pool
    from poolkit._statements import Borrow


class Line:
    """The only connection of a pool that nobody else uses.

    ``heard(payload)`` is called for every notification on the channel and returns whether it is
    worth waking whoever waits. ``timeout`` (seconds) bounds each question. After an error, `close`
    and open it again.
    """

    def __init__(
        self, pool: Pool, channel: str, timeout: float, heard: Callable[[str], bool]
    ) -> None:
        self._pool = pool
        self._channel = channel
        self._timeout = timeout
        self._hear = heard
        self._news = asyncio.Event()
        self._borrow: Borrow | None = None

    async def open(self) -> None:
        """Connect and listen."""
        from poolkit._session import Dirt
        from poolkit.driver import SupportsListen

        async with Deadline(self._timeout):
            await self._pool.open()
            borrow = self._borrow = await self._pool.lend(self._timeout)
            session = borrow.session
            assert isinstance(session, SupportsListen)
            borrow.slot.dirt |= Dirt.LISTENING  # it is meant to stay out
            await session.listen(self._channel, self._heard, self._news.set)

    async def ask(self, statement: Statement) -> Sequence[Row]:
        """Run one statement, committed at once; return its rows."""
        assert self._borrow is not None
        async with Deadline(self._timeout):
            return await self._borrow.fetch(statement.sql, statement.args, None)

    async def wait(self, patience: float) -> None:
        """Wait for news, ``patience`` seconds at most; the loss of the connection is news."""
        try:
            async with asyncio.timeout(patience):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def close(self) -> None:
        """Let go of the connection, whatever state it is in."""
        borrow, self._borrow = self._borrow, None
        try:
            if borrow is not None:
                try:
                    await borrow.session.close(self._timeout)
                except Exception:  # noqa: BLE001 - it did not go in good order
                    borrow.session.abort()
                borrow.end()
        finally:
            try:
                async with asyncio.timeout(2 * self._timeout):
                    await self._pool.close(0.0)
            except TimeoutError:
                pass  # being cancelled, the pool has aborted what was left

    def _heard(self, payload: str) -> None:
        if self._hear(payload):
            self._news.set()
