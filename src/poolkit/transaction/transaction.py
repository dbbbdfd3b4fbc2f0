"""Transactions that tell the truth: states, savepoints, outcome and hooks.

A transaction ends in one of three ways. *Committed* and *rolled back* are what the server said;
*unknown* is what is left when the connection dies after COMMIT was sent and before the answer
came. A COMMIT that the server answers with ROLLBACK is a rollback, and raises.

A caller that is cancelled while COMMIT is under way waits for its answer all the same, for a
bounded time (`Steadfast`), so that the hooks that belong to the outcome run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from poolkit.driver import Begin
from poolkit.errors import CommitRolledBack, CommitUnknown, ConnectionLost, TransactionError
from poolkit.transaction.hooks import Hook, Hooks, run_hooks
from poolkit.transaction.states import ALLOWED, REFUSALS, State, Step, begin_options
from poolkit.transaction.steadfast import Steadfast

if TYPE_CHECKING:
    from poolkit._statements import Borrow
    from poolkit.driver import Row
    from poolkit.telemetry.observer import Outcome, TransactionScope

_current: ContextVar[Transaction | None] = ContextVar("poolkit_transaction", default=None)


def current_transaction() -> Transaction | None:
    """Return the innermost open transaction of this task; None in a child task of its owner."""
    innermost = _current.get()
    if innermost is None:
        return None
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread that was given a copy of the task's context
        return None
    return innermost if innermost.task is task else None


class Owner(Protocol):
    """A pool, as far as its transactions care: they only tell one from another."""

    name: str


class Lender(Protocol):
    """Where a transaction that stands for itself gets its connection."""

    async def __call__(self) -> Borrow:
        """Borrow one."""
        ...


class Transaction:
    """An open transaction, or a savepoint in one; its methods are those of a connection.

    It belongs to the task that entered it; any other task is refused with `TransactionError`.
    """

    __slots__ = (
        "__weakref__", "_attempt", "_borrow", "_hooks", "_how", "_lender", "_outer", "_parent",
        "_savepoint", "_scope", "_state", "drop_hooks_if", "independent", "owner", "task",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        how: Begin,
        *,
        lender: Lender | None = None,
        borrow: Borrow | None = None,
        parent: Transaction | None = None,
        independent: bool = False,
        attempt: int = 1,
    ) -> None:
        self.owner = owner
        """The pool it belongs to."""
        self._how = how
        self._lender = lender
        self._borrow = borrow
        self._parent = parent
        self.independent = independent
        self._attempt = attempt
        self._state = State.NEW
        self._outer: Transaction | None = None
        self._savepoint = ""
        self._scope: TransactionScope | None = None
        self._hooks = Hooks()
        self.task: asyncio.Task[Any] | None = None
        self.drop_hooks_if: Callable[[BaseException], bool] | None = None
        """For `Pool.run`: an error after which the transaction will be run again."""

    def __repr__(self) -> str:
        what = f"savepoint {self._savepoint}" if self._savepoint else "transaction"
        return f"<{what} of pool {self.owner.name!r}, {self._state.name.lower()}>"

    @property
    def outer(self) -> Transaction | None:
        """What was the current transaction of the task when this one began."""
        return self._outer

    @property
    def root(self) -> Transaction:
        """The transaction that this one is a savepoint in; itself if it is none."""
        return self if self._parent is None else self._parent.root

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def readonly(self) -> bool:
        """Whether it may not write."""
        return self._how.readonly

    @property
    def isolation(self) -> str | None:
        """The isolation level that was asked for."""
        return self._how.isolation

    # -- statements ---------------------------------------------------------------------------

    def execute(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[int]:
        """Run a statement; return the number of rows it changed."""
        return self._use().execute(sql, args, timeout)

    def executemany(
        self, sql: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> Awaitable[None]:
        """Run a statement for each of the argument sequences, all of them or none."""
        return self._use().executemany(sql, args, timeout)

    def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[list[Row]]:
        """Return all rows."""
        return self._use().fetch(sql, args, timeout)

    def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Awaitable[Row | None]:
        """Return the first row, or None."""
        return self._use().fetchrow(sql, args, timeout)

    def fetchval(
        self, sql: str, *args: Any, column: int = 0, timeout: float | None = None
    ) -> Awaitable[Any]:
        """Return a value of the first row, or None if there is no row."""
        return self._use().fetchval(sql, args, column, timeout)

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        """Make a savepoint: what happens inside can be undone alone, by an error that leaves it."""
        self._use()
        how = begin_options(isolation, readonly, deferrable)
        if (
            how.isolation not in (None, self._how.isolation)
            or how.deferrable
            or (how.readonly and not self._how.readonly)
        ):
            raise TransactionError(
                f"a savepoint of {self!r} is what its transaction is: leave isolation, readonly "
                f"and deferrable out, or choose them on the outermost transaction()",
                pool=self.owner.name,
            )
        return Transaction(self.owner, self._how, borrow=self._borrow, parent=self)

    # -- hooks --------------------------------------------------------------------------------

    def before_commit(self, fn: Hook) -> None:
        """Call ``fn()`` inside the transaction right before COMMIT; its error rolls back.

        Async or plain. Dropped if the savepoint it was registered in is rolled back.
        """
        self._use()
        self._hooks.before.append(fn)

    def send_with_commit(
        self, sql: str, *, refused: Callable[[Exception], None] | None = None
    ) -> None:
        """Run a statement right before COMMIT, in one round trip with it where the driver can.

        It has no parameters, and its rows are seen by nobody. Its error rolls back; ``refused`` is
        called with that, or with what else the server had against the commit. Dropped if the
        savepoint it was registered in is rolled back.
        """
        self._use()
        self._hooks.along.add(sql, refused)

    def on_commit(self, fn: Hook, *, unknown: bool = False) -> None:
        """Call ``fn()`` after the commit, once the connection is back in the pool.

        Async or plain, in the order of registration. With ``unknown`` also when nobody knows
        whether the commit took place. An error in it is logged and stops nothing. Dropped if the
        savepoint it was registered in is rolled back.
        """
        self._use()
        self._hooks.committed.append((fn, unknown))

    def on_rollback(self, fn: Hook, *, retried: bool = False) -> None:
        """Call ``fn()`` after the rollback of the whole transaction, as `on_commit` does.

        With ``retried`` also when `Pool.run` is about to run it again.
        """
        self._use()
        self._hooks.rolled_back.append((fn, retried))

    # -- entering and leaving -----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin: borrow a connection if need be, and send BEGIN or SAVEPOINT."""
        state = self._step(Step.ENTER)
        self.task = asyncio.current_task()
        self._outer = current_transaction()
        if self._parent is not None:
            await self._enter_savepoint(self._parent)
        else:
            self._refuse_second()
            await self._enter_outermost()
        assert self._borrow is not None
        self._state = state
        self._borrow.transactions.append(self)
        _current.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End: commit, or roll back if an error is leaving the block."""
        ending = self._step(Step.LEAVE)
        assert self._borrow is not None
        if self._parent is not None:
            self._state = ending
            await self._leave_savepoint(self._parent, self._borrow, error)
        else:
            await self._leave_outermost(self._borrow, error)

    def _refuse_second(self) -> None:
        """Refuse what would wait for itself or surprise: a second one on this pool, by default."""
        tx = None if self.independent else self._outer
        while tx is not None and tx.owner is not self.owner:
            tx = tx.outer
        if tx is not None:
            raise TransactionError(
                f"this task already has a transaction open on pool {self.owner.name!r}: use "
                f"current_transaction().transaction() for a savepoint in it, or "
                f"transaction(independent=True) for one that commits on its own",
                pool=self.owner.name,
            )

    async def _enter_outermost(self) -> None:
        if self._lender is not None:
            self._borrow = await self._lender()
        borrow = self._borrow
        assert borrow is not None
        session, host = borrow.session, borrow.host
        self._scope = host.observer.transaction(
            self._how.isolation, self._how.readonly, self._attempt
        )
        borrow.slot.reading = self._how.readonly
        try:
            await session.begin(self._how)
        except BaseException as error:
            if isinstance(error, Exception):
                host.heed(borrow.slot, error)
            self._scope.end("rollback", error)
            if self._lender is not None:
                borrow.end()  # the cleaner ends what may have begun
            elif not borrow.void:
                await self._roll_back(borrow)
            raise

    async def _leave_outermost(self, borrow: Borrow, error: BaseException | None) -> None:
        end = await self._end(borrow, error)
        self._state = _STATES[end.outcome]
        self._leave(borrow)
        borrow.slot.reading = False
        assert self._scope is not None
        self._scope.end(end.outcome, end.error)
        if self._lender is not None:
            borrow.end()
        hooks = self._owed(end)
        if hooks:
            # In a task of the pool: what is owed after a commit is not lost with its caller.
            await asyncio.shield(borrow.host.spawn(run_hooks(hooks, self.owner.name)))
        if end.error is not None and end.error is not error:
            raise end.error

    async def _end(self, borrow: Borrow, error: BaseException | None) -> _End:
        """Bring it to its end, whatever it takes; raises nothing."""
        if error is None:
            try:
                borrow.session  # noqa: B018  void if the connection was given back in the block
                if self._hooks.before:
                    await self._hooks.run_before()
                await self._hooks.along.send_ahead(borrow.session)
            except BaseException as failure:  # noqa: BLE001  it is raised when all is in order
                error = failure
            else:
                self._state = State.ENDING
                end = await self._commit(borrow)
                if end.outcome != "rollback":
                    return end
                error = end.error
        self._state = State.ENDING
        if not borrow.void:
            try:
                await self._roll_back(borrow)
            except asyncio.CancelledError as cancelled:
                error = cancelled
        return _End("rollback", error)

    async def _commit(self, borrow: Borrow) -> _End:
        """Commit and see it through; raises nothing."""
        session, host = borrow.session, borrow.host
        work = self._hooks.along.commit(session)
        commit = Steadfast(work, host.config.housekeeping_timeout, session.abort)
        try:
            if await commit:
                return _COMMITTED if commit.cancelled is None else _End("commit", commit.cancelled)
            error: BaseException = CommitRolledBack(
                f"the server answered COMMIT with ROLLBACK on pool {self.owner.name!r}: a "
                f"statement in the transaction failed and its error was not raised again; use a "
                f"savepoint (tx.transaction()) around what may fail",
                pool=self.owner.name,
            )
        except Exception as failure:  # noqa: BLE001  it is raised when all is in order
            host.heed(borrow.slot, failure)
            if _outcome_is_known(failure):
                self._hooks.along.refuse(failure)
                return _End("rollback", commit.cancelled or failure)
            session.abort()
            error = CommitUnknown(
                f"the connection of pool {self.owner.name!r} was lost during COMMIT: the changes "
                f"may have been made or not; look for them before doing it again",
                pool=self.owner.name,
            )
            error.__cause__ = failure
            return _End("unknown", commit.cancelled or error)
        except asyncio.CancelledError as stopped:  # what it waited for was torn down
            session.abort()
            return _End("unknown", commit.cancelled or stopped)
        return _End("rollback", commit.cancelled or error)

    async def _roll_back(self, borrow: Borrow) -> None:
        session = borrow.session
        try:
            await session.rollback(borrow.host.config.housekeeping_timeout)
        except Exception as failure:  # noqa: BLE001  the error that is leaving is told instead
            borrow.host.heed(borrow.slot, failure)
            session.abort()
        except BaseException:
            if self._lender is None:
                session.abort()  # its holder must not go on inside a transaction it left
            raise

    async def _enter_savepoint(self, parent: Transaction) -> None:
        borrow = self._borrow = parent._use()
        self._savepoint = f"poolkit_{len(borrow.transactions)}"
        await self._sql(borrow, borrow.session.execute(f"SAVEPOINT {self._savepoint}", (), None))

    async def _leave_savepoint(
        self, parent: Transaction, borrow: Borrow, error: BaseException | None
    ) -> None:
        try:
            if error is not None:
                await self._undo_savepoint(borrow)
                return
            release = f"RELEASE SAVEPOINT {self._savepoint}"
            try:
                await self._sql(borrow, borrow.session.execute(release, (), None))
            except BaseException:
                await self._undo_savepoint(borrow)
                raise
            self._state = State.COMMITTED
            parent._hooks.take_over(self._hooks)
        finally:
            self._leave(borrow)

    async def _undo_savepoint(self, borrow: Borrow) -> None:
        self._state = State.ROLLED_BACK
        if borrow.void:
            return
        session, limit = borrow.session, borrow.host.config.housekeeping_timeout
        try:
            await session.execute(f"ROLLBACK TO SAVEPOINT {self._savepoint}", (), limit)
            await session.execute(f"RELEASE SAVEPOINT {self._savepoint}", (), limit)
        except BaseException as failure:
            # The outer transaction must not commit what should have been undone: end the session.
            session.abort()
            if not isinstance(failure, Exception):
                raise
            borrow.host.heed(borrow.slot, failure)

    def _leave(self, borrow: Borrow) -> None:
        if self in borrow.transactions:
            del borrow.transactions[borrow.transactions.index(self) :]
        if _current.get() is self:
            _current.set(self._outer)
        self._outer = None

    def _owed(self, end: _End) -> list[Hook]:
        again = self.drop_hooks_if
        if end.outcome == "rollback" and end.error and again is not None and again(end.error):
            return self._hooks.owed("retry")
        return self._hooks.owed(end.outcome)

    # -- checks -------------------------------------------------------------------------------

    def _step(self, step: Step) -> State:
        after = ALLOWED.get((self._state, step))
        if after is None:
            raise TransactionError(
                f"the {self._what()} on pool {self.owner.name!r} {REFUSALS[self._state]}",
                pool=self.owner.name,
            )
        return after

    def _use(self) -> Borrow:
        """Return the borrow if this task may use it now."""
        borrow = self._borrow
        if self._state is not State.OPEN or borrow is None:
            self._step(Step.USE)
        if asyncio.current_task() is not self.task:
            raise TransactionError(
                f"the {self._what()} on pool {self.owner.name!r} belongs to another task: a child "
                f"task is outside it; begin one of its own there",
                pool=self.owner.name,
            )
        assert borrow is not None
        if borrow.void:
            borrow.session  # noqa: B018  raises what is to be said
        return borrow

    def _what(self) -> str:
        return "savepoint" if self._parent is not None else "transaction"

    async def _sql(self, borrow: Borrow, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as failure:
            borrow.host.heed(borrow.slot, failure)
            raise


class _End(NamedTuple):
    outcome: Outcome
    error: BaseException | None


_COMMITTED = _End("commit", None)
_STATES = {
    "commit": State.COMMITTED,
    "rollback": State.ROLLED_BACK,
    "unknown": State.UNKNOWN,
}


def _outcome_is_known(failure: BaseException) -> bool:
    """Whether an error of COMMIT says that nothing was committed."""
    if isinstance(failure, ConnectionLost):
        return not failure.sent
    return not isinstance(failure, TimeoutError)
