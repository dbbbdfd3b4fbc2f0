"""A borrow: the right to run statements on one connection, void once it is given back.

Connections and transactions are both faces of a borrow. What every statement needs is done here,
once: refuse a void connection, keep the books on what it dirties, log the slow, pass on what an
error says about the server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from poolkit._session import read
from poolkit.errors import ConnectionVoid

if TYPE_CHECKING:
    import asyncio

    from poolkit._clock import Clock
    from poolkit._session import Slot
    from poolkit.config import PoolConfig
    from poolkit.driver import Row, Session
    from poolkit.telemetry.observer import Observer

logger = logging.getLogger("poolkit")

T = TypeVar("T")


class Host(Protocol):
    """What a borrow needs of the pool it came from."""

    name: str
    owner: Any
    """The pool that users hold."""
    config: PoolConfig
    clock: Clock
    observer: Observer

    def give_back(self, slot: Slot[Session]) -> None:
        """Take the connection back: at once if it is clean, else by way of the cleaner."""
        ...

    def heed(self, slot: Slot[Session], error: BaseException) -> None:
        """Take note of what an error that came out of the connection means."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run in a task that the pool owns and waits for when it closes."""
        ...


class Borrow:
    """One borrow of one connection."""

    __slots__ = ("_session", "_slot", "host", "transactions")

    def __init__(self, slot: Slot[Session], host: Host) -> None:
        self._slot = slot
        self._session: Session | None = slot.session
        self.host = host
        self.transactions: list[Any] = []
        """The open ones on it, the innermost last."""

    def __repr__(self) -> str:
        state = "given back" if self._session is None else "held"
        return f"<{type(self).__name__} of pool {self.host.name!r}, {state}>"

    @property
    def void(self) -> bool:
        """Whether it was given back."""
        return self._session is None

    @property
    def session(self) -> Session:
        """The session, or `ConnectionVoid`."""
        if self._session is None:
            raise ConnectionVoid(
                f"this connection of pool {self.host.name!r} was given back: acquire another, "
                f"or keep the work inside its 'async with' block",
                pool=self.host.name,
            )
        return self._session

    @property
    def slot(self) -> Slot[Session]:
        """What the pool knows of the connection."""
        return self._slot

    def end(self) -> None:
        """Give the connection back; again is a no-op. Never waits."""
        if self._session is not None:
            self._session = None
            self.host.give_back(self._slot)

    def cut(self) -> None:
        """Make it void without giving the connection back: for hooks, that never owned it."""
        self._session = None

    def execute(self, sql: str, args: Sequence[Any], timeout: float | None) -> Awaitable[int]:
        """Run a statement; return the number of rows it changed."""
        session = self._session or self.session  # the property says that it is void
        return self._run(sql, args, session.execute(sql, args, timeout))

    def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], timeout: float | None
    ) -> Awaitable[None]:
        """Run a statement for each of the argument sequences, all of them or none."""
        session = self._session or self.session  # the property says that it is void
        return self._run(sql, (), session.executemany(sql, args, timeout))

    def fetch(self, sql: str, args: Sequence[Any], timeout: float | None) -> Awaitable[list[Row]]:
        """Return all rows."""
        session = self._session or self.session  # the property says that it is void
        return self._run(sql, args, session.fetch(sql, args, timeout))

    def fetchrow(
        self, sql: str, args: Sequence[Any], timeout: float | None
    ) -> Awaitable[Row | None]:
        """Return the first row, or None."""
        session = self._session or self.session  # the property says that it is void
        return self._run(sql, args, session.fetchrow(sql, args, timeout))

    def fetchval(
        self, sql: str, args: Sequence[Any], column: int, timeout: float | None
    ) -> Awaitable[Any]:
        """Return a value of the first row, or None."""
        session = self._session or self.session  # the property says that it is void
        return self._run(sql, args, session.fetchval(sql, args, column, timeout))

    async def _run(self, sql: str, args: Sequence[Any], work: Awaitable[T]) -> T:
        slot = self._slot
        dirt = read(sql).dirt
        if dirt:
            slot.dirt |= dirt
            if slot.recording:
                slot.replay.append((sql, tuple(args)))
        slow = self.host.config.slow_query
        began = self.host.clock.monotonic() if slow is not None else 0.0
        slot.running += 1
        try:
            return await work
        except Exception as error:
            self.host.heed(slot, error)
            raise
        finally:
            slot.running -= 1
            if slow is not None:
                took = self.host.clock.monotonic() - began
                if took >= slow:
                    logger.warning(
                        "pool %r: a statement took %.3f s: %s", self.host.name, took, sql
                    )
