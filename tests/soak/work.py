"""What the tasks of a soak do with a pool, and what each of them may observe."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from poolkit import (
    AcquireTimeout,
    CommitUnknown,
    ConnectFailed,
    Connection,
    ConnectionLost,
    Pool,
    Transaction,
    current_transaction,
)
from poolkit.transaction import State
from tests.soak.outcomes import End, Outcomes, Record

_ENDS: dict[State, End] = {
    State.NEW: "never_begun",
    State.COMMITTED: "committed",
    State.ROLLED_BACK: "rolled_back",
    State.UNKNOWN: "unknown",
}
MAIN, BEFORE, SAVED, DROPPED = range(4)
"""The rows of a transaction: its own, of before_commit, of a savepoint kept and of one undone."""

EXPECTED = (AcquireTimeout, ConnectFailed, ConnectionLost, CommitUnknown, TimeoutError)
"""What the trouble that is made may raise; anything else is a violation."""


class Deliberate(Exception):
    """An error of the application, which rolls its transaction back."""


class Dialect:
    """What differs between the databases."""

    def __init__(self, *, seen: str, dirty: str, expected: tuple[type[Exception], ...]) -> None:
        self.seen = seen
        """A query that is true in a clean session outside any transaction that has written."""
        self.dirty = dirty
        """A statement after which it is not."""
        self.expected = (*EXPECTED, *expected)


class Crowd:
    """Tasks that use one pool in every way, are out of patience, and are cancelled."""

    def __init__(self, pool: Pool, dialect: Dialect, luck: random.Random, name: str) -> None:
        self.pool = pool
        self.name = name
        self.outcomes = Outcomes()
        self.tally: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.violations: list[str] = self.outcomes.violations
        self.counted = self.perhaps_counted = self.hooks_counted = 0
        self.over = False
        self._dialect = dialect
        self._luck = luck
        self._lent: set[object] = set()
        self._acts: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._transact, 8),
            (self._read, 4),
            (self._write, 3),
            (self._count, 2),
            (self._dirty, 2),
            (self._leave_open, 1),
        ]

    async def member(self) -> None:
        """Be one of the tasks, until it is over."""
        luck = self._luck
        acts, weights = zip(*self._acts, strict=True)
        while not self.over:
            [act] = luck.choices(acts, weights)
            await self._suffer(act)
            await asyncio.sleep(luck.expovariate(100))

    async def _suffer(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do it in a task of its own, with or without patience; maybe it is cancelled."""
        luck = self._luck
        fate = luck.random()
        patience = luck.expovariate(20) if fate < 0.1 else None

        async def bounded() -> None:
            async with asyncio.timeout(patience):
                await act()
            if current_transaction() is not None:
                self.violations.append("a transaction outlived its block")

        name = act.__name__.strip("_")
        task = asyncio.create_task(bounded(), name=f"soak {self.name} {name}")
        if fate > 0.9:
            asyncio.get_running_loop().call_later(luck.expovariate(50), task.cancel)
        await asyncio.wait([task])
        if task.cancelled():
            self.tally[f"{name} cancelled"] += 1
        elif (error := task.exception()) is None or isinstance(error, Deliberate):
            self.tally[name] += 1
        else:
            self.errors[type(error).__name__] += 1
            if not isinstance(error, self._dialect.expected):
                story = "".join(traceback.format_exception(error))
                self.violations.append(f"{name} raised {error!r}\n{story}")

    # -- transactions -------------------------------------------------------------------------

    async def _transact(self) -> None:
        record = self.outcomes.begin()
        tx = self.pool.transaction()
        error: BaseException | None = None
        try:
            async with tx:
                await self._fill(tx, record)
        except BaseException as raised:
            error = raised
            raise
        finally:
            end = _ENDS[tx.state]
            self.outcomes.end(record, end)
            self._check_agreement(end, error)

    async def _fill(self, tx: Transaction, record: Record) -> None:
        luck = self._luck
        record.has_hooks = True
        tx.on_commit(lambda: record.hooks.append("commit"))
        tx.on_commit(lambda: record.hooks.append("commit or unknown"), unknown=True)
        tx.on_rollback(lambda: record.hooks.append("rollback"))
        await self._insert(tx, record, MAIN)
        if luck.random() < 0.2:
            tx.before_commit(lambda: self._insert(tx, record, BEFORE))
        if luck.random() < 0.2:
            async with tx.transaction() as savepoint:
                await self._insert(savepoint, record, SAVED)
        if luck.random() < 0.2:
            await self._undo(tx, record)
        await asyncio.sleep(luck.expovariate(500))
        if luck.random() < 0.1:
            raise Deliberate

    async def _undo(self, tx: Transaction, record: Record) -> None:
        try:
            async with tx.transaction() as savepoint:
                savepoint.on_commit(lambda: record.hooks.append("of a savepoint undone"))
                await self._insert(savepoint, record, DROPPED)
                raise Deliberate
        except Deliberate:
            record.parts.discard(DROPPED)

    async def _insert(self, tx: Transaction, record: Record, part: int) -> None:
        await tx.execute("INSERT INTO soak VALUES ($1, $2)", record.number, part)
        record.parts.add(part)

    def _check_agreement(self, end: End, error: BaseException | None) -> None:
        """What is raised must say what is so; a cancellation says nothing."""
        if error is None:
            told: tuple[End, ...] = ("committed",)
        elif isinstance(error, CommitUnknown):
            told = ("unknown",)
        elif isinstance(error, asyncio.CancelledError | TimeoutError):
            return
        else:
            told = ("rolled_back", "never_begun")
        if end not in told:
            self.violations.append(f"a transaction that is {end} ended with {error!r}")

    async def _count(self) -> None:
        """Add one, running against others who do: each is counted once, or told otherwise."""
        attempts: list[Transaction] = []

        def counted() -> None:
            self.hooks_counted += 1

        async def add(tx: Transaction) -> None:
            attempts.append(tx)
            tx.on_commit(counted)
            number = await tx.fetchval("SELECT n FROM counter")
            await tx.execute("UPDATE counter SET n = $1", number + 1)

        try:
            await self.pool.run(add, retries=5, isolation="serializable")
        finally:
            self.counted += sum(tx.state is State.COMMITTED for tx in attempts)
            self.perhaps_counted += sum(tx.state is State.UNKNOWN for tx in attempts)

    # -- statements ---------------------------------------------------------------------------

    async def _read(self) -> None:
        assert await self.pool.fetchval("SELECT 7") == 7

    async def _write(self) -> None:
        """Write without a transaction: only a return without an error says that it is there."""
        record = self.outcomes.begin()
        record.parts.add(MAIN)
        end: End = "unknown"
        try:
            await self.pool.execute("INSERT INTO soak VALUES ($1, $2)", record.number, MAIN)
            end = "committed"
        finally:
            self.outcomes.end(record, end)

    async def _dirty(self) -> None:
        """Find a clean session, and leave a dirty one."""
        async with self._borrowed() as connection:
            if not await connection.fetchval(self._dialect.seen):
                self.violations.append("a session came with what another had left in it")
            await connection.execute(self._dialect.dirty)

    async def _leave_open(self) -> None:
        """Give a connection back inside a transaction; that undoes it."""
        record = self.outcomes.begin()
        try:
            async with self._borrowed() as connection:
                await connection.execute("BEGIN")
                await connection.execute("INSERT INTO soak VALUES ($1, $2)", record.number, MAIN)
        finally:
            self.outcomes.end(record, "rolled_back")

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Connection]:
        async with self.pool.acquire(timeout=self._luck.uniform(0.05, 3)) as connection:
            slot = connection._borrow.slot
            if slot in self._lent:
                self.violations.append("a connection was lent to two at once")
            self._lent.add(slot)
            try:
                yield connection
            finally:
                self._lent.discard(slot)
