"""PostgreSQL through asyncpg: its connections as sessions, its errors mapped once, here."""

from __future__ import annotations

import select
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import asyncpg
from asyncpg import exceptions as pg

from poolkit._session import Dirt
from poolkit.driver import PLAIN, Address, Begin, Fault, Row
from poolkit.drivers import _pooler
from poolkit.errors import ConnectFailed, ConnectionLost

T = TypeVar("T")

_RETRY = frozenset({"40001", "40P01"})
_EVICT = frozenset({"25006", "57P01", "57P02", "57P03", "57P04", "57P05"})
_LOST = (
    pg.ConnectionDoesNotExistError,
    pg.ConnectionFailureError,
    pg.InterfaceError,
    pg.InternalClientError,
    OSError,
)
_SETTLE = 0.005

# What asyncpg's own reset leaves behind: the role, temporary tables, sequences' last values.
_REST = ("SET SESSION AUTHORIZATION DEFAULT", "DISCARD TEMP", "DISCARD SEQUENCES")


@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresOptions:
    """How to connect to PostgreSQL, beyond the URL.

    - ``server_settings`` are set for every session, ``application_name`` and ``statement_timeout``
      (seconds; the server cancels what takes longer) are two of them by name.
    - ``command_timeout`` (seconds) is how long the client waits for a statement by default.
    - ``statement_cache_size=0`` is what a PgBouncer in transaction mode wants; with it, what needs
      a session of the server's own is warned of, or refused as `Pool.listen` is.
    - ``target_session_attrs``: which of several hosts will do: "any", "read-write", "primary", …
    - ``ssl`` is whatever `asyncpg.connect` takes.
    """

    server_settings: Mapping[str, str] = field(default_factory=dict)
    application_name: str | None = None
    statement_timeout: float | None = None
    command_timeout: float | None = None
    statement_cache_size: int = 100
    target_session_attrs: str | None = None
    ssl: Any = None

    def settings(self) -> dict[str, str]:
        """Return the server settings, all of them as text."""
        settings = {name: str(value) for name, value in self.server_settings.items()}
        if self.application_name is not None:
            settings["application_name"] = self.application_name
        if self.statement_timeout is not None:
            settings["statement_timeout"] = str(round(self.statement_timeout * 1000))
        return settings


class PostgresDriver:
    """Makes sessions of one PostgreSQL database."""

    system = "postgresql"

    def __init__(self, dsn: str, address: Address, options: PostgresOptions | None = None) -> None:
        self._dsn = dsn
        self._options = options or PostgresOptions()
        self.address = address

    async def connect(self, timeout: float) -> PostgresSession:
        """Make a connection within ``timeout`` seconds; several hosts are resolved anew."""
        options = self._options
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=timeout,
                server_settings=options.settings() or None,
                command_timeout=options.command_timeout,
                statement_cache_size=options.statement_cache_size,
                target_session_attrs=options.target_session_attrs,
                ssl=options.ssl,
            )
        except (pg.PostgresError, pg.InterfaceError, OSError, ValueError) as error:
            # OSError is also TimeoutError and all that DNS, sockets and TLS can say.
            what = str(error) or f"no answer in {timeout:g} s"
            raise ConnectFailed(
                f"cannot connect to PostgreSQL at {self.address}: {what}{_pooler.advice(error)}",
                server=str(self.address),
            ) from error
        unnamed = options.statement_cache_size == 0
        return PostgresSession(connection, str(self.address), unnamed=unnamed)

    def fault(self, error: BaseException) -> Fault:
        """Read the SQLSTATE of an error."""
        sqlstate = getattr(error, "sqlstate", None)
        if not isinstance(sqlstate, str):
            return Fault()
        lost = isinstance(error, ConnectionLost)
        return Fault(
            sqlstate,
            retry=sqlstate in _RETRY and not lost,
            evict=sqlstate in _EVICT or sqlstate.startswith("08"),
        )


class PostgresSession:
    """One asyncpg connection."""

    __slots__ = (
        "_born", "_connection", "_protocol", "_record", "_server", "_socket", "_unnamed", "_warned",
    )  # fmt: skip

    def __init__(self, connection: Any, server: str, *, unnamed: bool = False) -> None:
        self._connection = connection
        self._protocol = connection._protocol
        self._record = self._protocol.get_record_class()
        self._server = server
        self._born = _pooler.carried(connection)
        self._unnamed = unnamed
        """Whether statements have no names: the sign of a pooler in transaction mode."""
        self._warned = not unnamed
        transport = connection._transport
        self._socket = transport.get_extra_info("socket")

    @property
    def raw(self) -> asyncpg.Connection:
        """The asyncpg connection."""
        return self._connection

    @property
    def closed(self) -> bool:
        """Whether the connection is known to be gone."""
        return not self._protocol.is_connected()

    @property
    def in_transaction(self) -> bool:
        """What the server said with its last answer."""
        connection = self._connection
        return not connection.is_closed() and connection.is_in_transaction()

    @property
    def at_rest(self) -> bool:
        """What asyncpg's protocol knows without asking the server."""
        protocol = self._protocol
        return (
            protocol.is_connected()
            and not protocol.is_in_transaction()
            and not protocol._is_cancelling()
        )

    @property
    def unsettled(self) -> bool:
        """Whether the server has not yet answered a cancellation."""
        return cast("bool", self._protocol._is_cancelling())

    async def execute(self, sql: str, args: Sequence[Any], timeout: float | None) -> int:
        """Run one statement (several, if there are no arguments); return the rows changed."""
        try:
            return row_count(await self._connection.execute(sql, *args, timeout=timeout))
        except _LOST as error:
            raise self._lost(error) from error

    async def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], timeout: float | None
    ) -> None:
        """Run one statement for each of the argument sequences, all of them or none."""
        await self._mapped(self._connection.executemany(sql, args, timeout=timeout))

    async def fetch(self, sql: str, args: Sequence[Any], timeout: float | None) -> list[Row]:
        """Return all rows."""
        connection, protocol = self._connection, self._protocol
        try:
            if timeout is None and protocol.is_connected() and not protocol.is_in_transaction():
                prepared = connection._stmt_cache.get((sql, self._record, False))
                if prepared is not None and not connection._query_loggers:
                    # asyncpg has four more layers, which prepare what is not: a tenth of a read.
                    try:
                        with connection._stmt_exclusive_section:
                            work = protocol.bind_execute(prepared, args, "", 0, False, None)
                            return cast("list[Row]", await work)
                    except pg.InvalidCachedStatementError:
                        pass  # refused before it ran: it is prepared anew
            return cast("list[Row]", await connection.fetch(sql, *args, timeout=timeout))
        except _LOST as error:
            raise self._lost(error) from error

    async def fetchrow(self, sql: str, args: Sequence[Any], timeout: float | None) -> Row | None:
        """Return the first row."""
        try:
            row = await self._connection.fetchrow(sql, *args, timeout=timeout)
            return cast("Row | None", row)
        except _LOST as error:
            raise self._lost(error) from error

    async def fetchval(
        self, sql: str, args: Sequence[Any], column: int, timeout: float | None
    ) -> Any:
        """Return one value of the first row."""
        try:
            return await self._connection.fetchval(sql, *args, column=column, timeout=timeout)
        except _LOST as error:
            raise self._lost(error) from error

    async def begin(self, how: Begin) -> None:
        """Send BEGIN with its options: one round trip."""
        try:
            await self._connection.execute(begin_sql(how))
        except _LOST as error:
            raise self._lost(error) from error

    async def commit(self) -> bool:
        """Send COMMIT and say whether the server did it."""
        return await self._commit("COMMIT")

    async def commit_with(self, sql: str) -> bool:
        """Send statements and COMMIT together; what fails there keeps the rest from being run."""
        try:
            return await self._commit(f"{sql}; COMMIT")
        except pg.InFailedSQLTransactionError:
            return await self.commit()  # which says why: an earlier statement failed

    async def _commit(self, sql: str) -> bool:
        if self.closed:
            raise ConnectionLost(
                f"the connection to PostgreSQL at {self._server} was lost before COMMIT was sent: "
                f"nothing was written",
                sent=False,
            )
        try:
            return cast("str", await self._connection.execute(sql)) == "COMMIT"
        except _LOST as error:
            raise self._lost(error) from error

    async def rollback(self, timeout: float) -> None:
        """Send ROLLBACK if the server has a transaction open."""
        if self.unsettled:
            await self.settle()
        if self.in_transaction:
            await self._mapped(self._connection.execute("ROLLBACK", timeout=timeout))

    async def settle(self) -> None:
        """Wait until the server has answered the cancellation."""
        while self.unsettled and not self.closed:
            await self._connection._protocol._wait_for_cancellation()

    async def reset(self, dirt: Dirt, timeout: float) -> bool:
        """Bring the session back to how it was born; prepared statements by hand cannot be."""
        if dirt & Dirt.PREPARED:
            return False
        await self._connection.reset(timeout=timeout)
        rest = (*_REST, *_pooler.restoring(self._connection, self._born))
        await self._connection.execute("; ".join(rest), timeout=timeout)
        if dirt & ~Dirt.RAW and not self._warned:
            self._warned = True
            await _pooler.warn_of_traces(self._connection, self._server)
        return True

    async def ping(self, timeout: float) -> None:
        """Make one round trip."""
        await self._mapped(self._connection.execute("SELECT", timeout=timeout))

    def watch(self, lost: Callable[[], None]) -> None:
        """Call ``lost()`` when the connection ends."""
        self._connection.add_termination_listener(lambda _: lost())

    def stale(self) -> bool:
        """Look whether there is something to read: an idle server only speaks to say goodbye."""
        if self._socket is None or self._socket.fileno() < 0:
            return True
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        return bool(poller.poll(0)) and not self._has_listeners()

    def _has_listeners(self) -> bool:
        return bool(self._connection._listeners or self._connection._log_listeners)

    async def close(self, timeout: float) -> None:
        """Say goodbye to the server and close."""
        await self._connection.close(timeout=timeout)

    def abort(self) -> None:
        """Drop the connection."""
        if not self._connection.is_closed():
            self._connection.terminate()

    async def listen(
        self, channel: str, heard: Callable[[str], None], lost: Callable[[], None]
    ) -> None:
        """Subscribe to a channel; through a pooler in transaction mode nothing would be heard."""
        check = _pooler.refuse_listening(self._connection, self._server, certain=self._unnamed)
        await self._mapped(check)
        self.watch(lost)
        await self._mapped(
            self._connection.add_listener(channel, lambda _c, _p, _ch, payload: heard(payload))
        )

    async def lag(self, timeout: float) -> float:
        """Return how many seconds of changes a standby has not replayed yet."""
        return cast("float", await self.fetchval(_LAG, (), 0, timeout))

    async def _mapped(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except _LOST as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Exception:
        """Return what the error is to the pool: a lost connection, or what it was."""
        if isinstance(error, pg.InternalClientError):
            self.abort()  # the server has said goodbye while idle; its hanging up is on its way
        if isinstance(error, TimeoutError) or not self.closed:
            return error
        cause = error.__cause__
        sqlstate = getattr(cause, "sqlstate", None) or getattr(error, "sqlstate", None)
        return ConnectionLost(
            f"the connection to PostgreSQL at {self._server} was lost: {cause or error}",
            sqlstate=sqlstate or "08006",
            sent=not _is_refusal(error),
        )


def _is_refusal(error: Exception) -> bool:
    """Whether asyncpg itself refused to send anything."""
    return isinstance(error, pg.InterfaceError) or str(error).startswith("cannot switch to state")


# A standby that is connected and has replayed all it received is not behind, however old its last
# transaction; one of which nothing is known is as far behind as can be.
_LAG = """
SELECT (CASE
  WHEN NOT pg_is_in_recovery() THEN 0
  WHEN EXISTS (SELECT FROM pg_stat_wal_receiver)
   AND pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_last_wal_replay_lsn() THEN 0
  ELSE coalesce(
    extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'Infinity'
  )
END)::float8
"""


def begin_sql(how: Begin) -> str:
    """Return the BEGIN statement."""
    if how is PLAIN:
        return "BEGIN"
    parts = ["BEGIN"]
    if how.isolation is not None:
        parts.append("ISOLATION LEVEL " + how.isolation.replace("_", " ").upper())
    if how.readonly:
        parts.append("READ ONLY")
    if how.deferrable:
        parts.append("DEFERRABLE")
    return " ".join(parts)


def row_count(status: str) -> int:
    """Return the rows changed from a command tag; reading changes none."""
    word, _, count = status.rpartition(" ")
    if not count.isdigit() or word.startswith(("SELECT", "FETCH", "MOVE")):
        return 0
    return int(count)
