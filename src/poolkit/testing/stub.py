"""A database without a database: time and failure as the test scripts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from poolkit._session import Dirt
from poolkit.driver import Address, Begin, Fault, Row
from poolkit.errors import ConnectFailed, ConnectionLost


class StubDriver:
    """Makes `StubSession`\\ s; change its attributes at any time.

    ``connect_latency`` and ``latency`` (of a statement) are seconds. ``down`` refuses connections
    with that message. ``failures`` maps a statement to the error it raises, ``answers`` to what it
    returns. ``hang`` makes everything wait for ever, as a black-holed server does.
    """

    system = "stub"
    address = Address("stub", None, "test")

    def __init__(self, *, connect_latency: float = 0.0, latency: float = 0.0) -> None:
        self.connect_latency = connect_latency
        self.latency = latency
        self.down: str | None = None
        self.hang = False
        self.failures: dict[str, BaseException] = {}
        self.answers: dict[str, Any] = {}
        self.attempts = 0
        self.attempt_times: list[float] = []
        self.sessions: list[StubSession] = []
        self.faults: dict[type[BaseException], Fault] = {}

    @property
    def open_sessions(self) -> list[StubSession]:
        """Those that are not closed."""
        return [session for session in self.sessions if not session.closed]

    async def connect(self, timeout: float) -> StubSession:
        """Make a session, after ``connect_latency``."""
        self.attempts += 1
        self.attempt_times.append(asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(timeout):
                await self.wait(self.connect_latency)
        except TimeoutError as error:
            raise ConnectFailed(f"no answer in {timeout:g} s", server="stub") from error
        if self.down is not None:
            raise ConnectFailed(self.down, server="stub")
        session = StubSession(self)
        self.sessions.append(session)
        return session

    async def wait(self, seconds: float) -> None:
        """Take some time, or all of it."""
        if self.hang:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(seconds)

    def fault(self, error: BaseException) -> Fault:
        """Read an error as ``faults`` says."""
        return self.faults.get(type(error), Fault())


class StubSession:
    """One connection to nowhere; ``log`` has every statement that was run."""

    def __init__(self, driver: StubDriver) -> None:
        self._driver = driver
        self.closed = False
        self.in_transaction = False
        self.unsettled = False
        self.log: list[str] = []
        self.resets: list[Dirt] = []
        self._lost: list[Callable[[], None]] = []

    @property
    def raw(self) -> StubSession:
        """The session itself."""
        return self

    @property
    def at_rest(self) -> bool:
        """Whether it is open and idle."""
        return not (self.closed or self.in_transaction or self.unsettled)

    def kill(self) -> None:
        """End it from the other side."""
        self.closed = True
        for lost in self._lost:
            asyncio.get_running_loop().call_soon(lost)

    async def _run(self, sql: str) -> Any:
        if self.closed:
            raise ConnectionLost("the stub was killed", sent=False)
        self.log.append(sql)
        await self._driver.wait(self._driver.latency)
        if self.closed:
            raise ConnectionLost("the stub was killed")
        if (error := self._driver.failures.get(sql)) is not None:
            raise error
        return self._driver.answers.get(sql)

    async def execute(self, sql: str, args: Sequence[Any], timeout: float | None) -> int:
        """Run a statement."""
        async with asyncio.timeout(timeout):
            return int(await self._run(sql) or 0)

    async def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], timeout: float | None
    ) -> None:
        """Run a statement for each."""
        for _ in args:
            await self._run(sql)

    async def fetch(self, sql: str, args: Sequence[Any], timeout: float | None) -> list[Row]:
        """Return the scripted answer."""
        async with asyncio.timeout(timeout):
            return await self._run(sql) or []

    async def fetchrow(self, sql: str, args: Sequence[Any], timeout: float | None) -> Row | None:
        """Return the first row of the scripted answer."""
        rows = await self.fetch(sql, args, timeout)
        return rows[0] if rows else None

    async def fetchval(
        self, sql: str, args: Sequence[Any], column: int, timeout: float | None
    ) -> Any:
        """Return the scripted answer."""
        async with asyncio.timeout(timeout):
            return await self._run(sql)

    async def begin(self, how: Begin) -> None:
        """Open a transaction: on the way there, as a server would."""
        self.in_transaction = True
        await self._run("BEGIN")

    async def commit(self) -> bool:
        """Close it."""
        answer = await self._run("COMMIT")
        self.in_transaction = False
        return bool(answer != "ROLLBACK")

    async def rollback(self, timeout: float) -> None:
        """Undo it."""
        if self.in_transaction:
            async with asyncio.timeout(timeout):
                await self._run("ROLLBACK")
            self.in_transaction = False

    async def settle(self) -> None:
        """Nothing is ever unsettled."""
        self.unsettled = False

    async def reset(self, dirt: Dirt, timeout: float) -> bool:
        """Note what was to be undone."""
        self.resets.append(dirt)
        await self._run("RESET")
        return not dirt & Dirt.PREPARED

    async def ping(self, timeout: float) -> None:
        """Make a round trip."""
        async with asyncio.timeout(timeout):
            await self._run("PING")

    def watch(self, lost: Callable[[], None]) -> None:
        """Call ``lost()`` when it is killed."""
        self._lost.append(lost)

    def stale(self) -> bool:
        """Nobody hangs up unnoticed here."""
        return False

    async def close(self, timeout: float) -> None:
        """Close."""
        async with asyncio.timeout(timeout):
            await self._driver.wait(0)
        self.closed = True

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
