"""A borrowed connection: a handle that knows when it is void."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from poolkit._session import Dirt
from poolkit._statements import Borrow
from poolkit.transaction import Transaction, begin_options

if TYPE_CHECKING:
    from poolkit.driver import Row


class Connection:
    """A connection on loan. After it was given back every method raises `ConnectionVoid`.

    ``timeout`` bounds one statement, in seconds; parameters are ``$1``, ``$2``, … on every driver.
    """

    __slots__ = ("_borrow",)

    def __init__(self, borrow: Borrow) -> None:
        self._borrow = borrow

    def __repr__(self) -> str:
        return repr(self._borrow).replace("Borrow", "Connection", 1)

    def execute(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[int]:
        """Run a statement; return the number of rows it changed."""
        return self._borrow.execute(sql, args, timeout)

    def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> Awaitable[None]:
        """Run a statement for each of the argument sequences, all of them or none."""
        return self._borrow.executemany(sql, args, timeout)

    def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[list[Row]]:
        """Return all rows."""
        return self._borrow.fetch(sql, args, timeout)

    def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[Row | None]:
        """Return the first row, or None."""
        return self._borrow.fetchrow(sql, args, timeout)

    def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Awaitable[Any]:
        """Return a value of the first row, or None if there is no row."""
        return self._borrow.fetchval(sql, args, column, timeout)

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """Make a transaction on this connection; inside an open one, a savepoint.

        Its hooks run when its block ends, while the connection is still held.
        """
        borrow = self._borrow
        borrow.session  # noqa: B018  void is told here, not at the first statement
        if borrow.transactions:
            parent: Transaction = borrow.transactions[-1]
            return parent.transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)
        how = begin_options(isolation, readonly, deferrable)
        return Transaction(borrow.host.owner, how, borrow=borrow, independent=True)

    @property
    def raw(self) -> Any:
        """The driver's own connection. Taking it has the session reset when it comes back."""
        session = self._borrow.session
        self._borrow.slot.dirt |= Dirt.RAW
        return session.raw

    def release(self) -> None:
        """Give the connection back, as leaving ``async with pool.acquire()`` does."""
        self._borrow.end()


class Lender(Protocol):
    """Where connections come from: a pool."""

    def take(self) -> Borrow | None:
        """Borrow one at once, if one is idle and known to be good."""
        ...

    async def lend(self, timeout: float | None = None) -> Borrow:
        """Borrow one, waiting up to ``timeout`` seconds."""
        ...


class Acquire:
    """What `Pool.acquire` returns: an async context manager; awaiting it gives the connection."""

    __slots__ = ("_borrow", "_lender", "_timeout")

    def __init__(self, lender: Lender, timeout: float | None) -> None:
        self._lender = lender
        self._timeout = timeout
        self._borrow: Borrow | None = None

    async def __aenter__(self) -> Connection:
        """Borrow."""
        borrow = self._lender.take() or await self._lender.lend(self._timeout)
        self._borrow = borrow
        return Connection(borrow)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give back; never waits."""
        assert self._borrow is not None
        self._borrow.end()

    def __await__(self) -> Generator[Any, Any, Connection]:
        """Borrow until `Connection.release`."""
        borrow = self._lender.take()
        if borrow is None:
            borrow = yield from self._lender.lend(self._timeout).__await__()
        return Connection(borrow)
