"""The seam between the pool and a database: a `Driver` makes `Session`\\ s, and reads its errors.

What only some databases can do stands in protocols of its own (`SupportsListen`, …), which the
pool asks for with ``isinstance``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from poolkit._session import Dirt


class Row(Protocol):
    """One row: ``row["x"]``, ``row[0]``, ``dict(row)``; iterating gives the values."""

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...

    def keys(self) -> Any:
        """Return the names of the columns."""
        ...


@dataclass(frozen=True, slots=True)
class Begin:
    """How a transaction is to begin; ``isolation`` in SQL words with underscores, or None."""

    isolation: str | None = None
    readonly: bool = False
    deferrable: bool = False


PLAIN = Begin()
"""As most begin; made once because making a frozen dataclass is dear (0.6 µs)."""


class Fault(NamedTuple):
    """What an error of a driver means to the pool."""

    sqlstate: str | None = None
    retry: bool = False
    """The transaction lost a race: running it again may succeed."""
    evict: bool = False
    """The server is going away or is no longer the one to write to: leave all its connections."""


class Address(NamedTuple):
    """Where the database is, without credentials; for names and telemetry."""

    host: str
    port: int | None
    database: str

    def __str__(self) -> str:
        """Return ``host:port/database``."""
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.host}{port}/{self.database}" if self.host else self.database


class Session(Protocol):
    """One connection to the database. A lost one raises `ConnectionLost` from every method."""

    @property
    def closed(self) -> bool:
        """Whether it is known to be gone."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also a failed one, as the server told last."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether it is open and has neither a transaction nor a statement under way.

        The one question that is asked at every return.
        """
        ...

    @property
    def unsettled(self) -> bool:
        """Whether a cancelled statement has not come to its end yet; `settle` waits for it."""
        ...

    @property
    def raw(self) -> Any:
        """The driver's own connection."""
        ...

    async def execute(self, sql: str, args: Sequence[Any], timeout: float | None) -> int:
        """Run one statement; return the number of rows it changed."""
        ...

    async def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], timeout: float | None
    ) -> None:
        """Run one statement for each of the argument sequences, all of them or none."""
        ...

    async def fetch(self, sql: str, args: Sequence[Any], timeout: float | None) -> list[Row]:
        """Return all rows."""
        ...

    async def fetchrow(self, sql: str, args: Sequence[Any], timeout: float | None) -> Row | None:
        """Return the first row."""
        ...

    async def fetchval(
        self, sql: str, args: Sequence[Any], column: int, timeout: float | None
    ) -> Any:
        """Return one value of the first row; None if there is no row."""
        ...

    async def begin(self, how: Begin) -> None:
        """Begin a transaction."""
        ...

    async def commit(self) -> bool:
        """Commit; False if the server answered with a rollback.

        `ConnectionLost` with ``sent`` says that the outcome is unknown. After any other error the
        transaction is not committed.
        """
        ...

    async def rollback(self, timeout: float) -> None:
        """Roll back; nothing if no transaction is open."""
        ...

    async def settle(self) -> None:
        """Wait until a cancelled statement has come to its end."""
        ...

    async def reset(self, dirt: Dirt, timeout: float) -> bool:
        """Undo the dirt; False if only a new connection is clean."""
        ...

    async def ping(self, timeout: float) -> None:
        """Make one round trip."""
        ...

    def watch(self, lost: Callable[[], None]) -> None:
        """Call ``lost()`` from the loop when the session goes away, for whatever reason."""
        ...

    def stale(self) -> bool:
        """Look, without waiting, whether the other side has hung up unnoticed."""
        ...

    async def close(self, timeout: float) -> None:
        """Close in an orderly way, within the timeout, else abort."""
        ...

    def abort(self) -> None:
        """Drop it at once, without waiting; safe in any state, also twice."""
        ...


class Driver(Protocol):
    """Makes connections to one database."""

    @property
    def system(self) -> str:
        """``db.system.name`` of the OpenTelemetry conventions."""
        ...

    @property
    def address(self) -> Address:
        """Where the database is."""
        ...

    async def connect(self, timeout: float) -> Session:
        """Make a connection within ``timeout`` seconds; failure is `ConnectFailed`."""
        ...

    def fault(self, error: BaseException) -> Fault:
        """Say what an error that came out of a session means."""
        ...


@runtime_checkable
class SupportsListen(Protocol):
    """A session that can hear notifications."""

    async def listen(
        self, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        """Call ``heard(payload)`` for every notification, ``lost()`` when the session is gone."""
        ...


class SupportsCommitWith(Protocol):
    """A session that can send statements together with COMMIT, in one round trip."""

    async def commit_with(self, sql: str) -> bool:
        """Run statements without parameters and commit, as `Session.commit` does."""
        ...


@runtime_checkable
class SupportsLag(Protocol):
    """A session that can tell how far behind its primary it is."""

    async def lag(self, timeout: float) -> float:
        """Return seconds; 0 for a primary."""
        ...


class NotShareable(Exception):
    """Raised by `Shared.fetch` for what turned out to want a connection alone."""


class Shared(Protocol):
    """Few connections on which the single statements of many callers run together."""

    def execute(self, sql: str, args: Sequence[Any]) -> Awaitable[int]:
        """Run one changing statement, committed on return; return the number of rows changed."""
        ...

    async def fetch(self, sql: str, args: Sequence[Any], limit: int | None) -> Sequence[Row]:
        """Return the first ``limit`` rows of one reading statement, or all."""
        ...

    async def close(self) -> None:
        """Let go, after the last write was answered."""
        ...


@runtime_checkable
class SupportsShared(Protocol):
    """A driver whose database is faster when single statements share connections.

    A pool uses that while it has a connection to lend, and lends none.
    """

    def share(self) -> Shared:
        """Return what callers in the running loop share; each pool closes what it got."""
        ...


@runtime_checkable
class SupportsUpkeep(Protocol):
    """A session whose database wants care."""

    async def optimize(self) -> None:
        """Refresh what the query planner knows."""
        ...

    async def backup(self, path: Path) -> None:
        """Copy the database, as it is at one moment, to a new file."""
        ...


class SyncTransaction(Protocol):
    """The blocking face of a connection, for one thread at a time."""

    def execute(self, sql: str, *args: Any) -> int:
        """Run one statement; return the number of rows it changed."""
        ...

    def executemany(self, sql: str, args: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each of the argument sequences, all of them or none."""
        ...

    def fetch(self, sql: str, *args: Any) -> list[Row]:
        """Return all rows."""
        ...

    def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """Return the first row."""
        ...

    def fetchval(self, sql: str, *args: Any) -> Any:
        """Return the first value of the first row; None if there is no row."""
        ...


class SyncFace(SyncTransaction, Protocol):
    """A database in the caller's thread: one statement each, or a transaction."""

    def transaction(self, *, readonly: bool = False) -> AbstractContextManager[SyncTransaction]:
        """Commit when the block ends, roll back when it raises."""
        ...

    def close(self) -> None:
        """Close every connection; a statement under way in another thread comes to its end."""
        ...


@runtime_checkable
class SupportsSync(Protocol):
    """A driver whose database can also be used without an event loop, in the caller's thread."""

    def sync(self) -> SyncFace:
        """Return a new blocking face of the same database; whoever asked closes it."""
        ...
