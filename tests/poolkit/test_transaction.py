"""The states of a transaction: every step in every state."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool, TransactionError
from poolkit.testing import StubDriver, VirtualClock, run_virtual
from poolkit.transaction import ALLOWED, State, Step, Transaction


def _in_state(pool: Pool, state: State) -> Transaction:
    transaction = pool.transaction()
    transaction._state = state
    return transaction


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_every_step_in_every_state(state: State, step: Step) -> None:
    """What is not in the table is refused, in words that name the state and a way out."""
    transaction = _in_state(Pool(StubDriver()), state)
    if (state, step) in ALLOWED:
        assert transaction._step(step) is ALLOWED[state, step]
    else:
        with pytest.raises(TransactionError, match=r"transaction on pool 'stub/test' has|is"):
            transaction._step(step)


def test_entering_twice_is_refused() -> None:
    """A transaction object is for one transaction."""

    async def main() -> None:
        async with Pool(StubDriver(), clock=VirtualClock()) as pool:
            transaction = pool.transaction()
            with pytest.raises(TransactionError, match="has not begun"):
                await transaction.execute("SELECT 1")
            async with transaction:
                with pytest.raises(TransactionError, match="has begun already"):
                    await transaction.__aenter__()
            for use in (transaction.__aenter__, lambda: transaction.execute("SELECT 1")):
                with pytest.raises(TransactionError, match="has been committed"):
                    await use()  # type: ignore[operator]

    run_virtual(main)


def test_a_savepoint_has_no_isolation_of_its_own() -> None:
    """Asking for one inside a transaction is refused."""

    async def main() -> None:
        async with Pool(StubDriver(), clock=VirtualClock()) as pool, pool.transaction() as tx:
            with pytest.raises(TransactionError, match="isolation"):
                tx.transaction(isolation="serializable")

    run_virtual(main)


def test_a_cancelled_commit_is_seen_through() -> None:
    """COMMIT that was sent is waited for; the hooks of its outcome run, then the cancellation."""

    async def main() -> None:
        ran: list[str] = []
        driver = StubDriver(latency=1.0)
        async with Pool(driver, clock=VirtualClock()) as pool:

            async def transact() -> None:
                async with pool.transaction() as tx:
                    tx.on_commit(lambda: ran.append("commit"))
                    tx.on_rollback(lambda: ran.append("rollback"))

            task = asyncio.create_task(transact())
            await asyncio.sleep(1.5)  # in the middle of COMMIT
            task.cancel()
            await asyncio.sleep(0.1)
            task.cancel()  # impatience changes nothing
            await asyncio.wait([task])
            assert task.cancelled()
            assert ran == ["commit"]
            assert "COMMIT" in driver.sessions[0].log

    run_virtual(main)


def test_a_cancelled_commit_is_not_waited_for_for_ever() -> None:
    """If the answer does not come, the connection is dropped and the outcome is unknown."""

    async def main() -> None:
        ran: list[str] = []
        loop = asyncio.get_running_loop()
        driver = StubDriver()
        async with Pool(driver, housekeeping_timeout=5.0, clock=VirtualClock()) as pool:

            async def transact() -> None:
                async with pool.transaction() as tx:
                    tx.on_commit(lambda: ran.append("unknown"), unknown=True)
                    tx.on_rollback(lambda: ran.append("rollback"))
                    driver.hang = True

            task = asyncio.create_task(transact())
            await asyncio.sleep(1)
            began = loop.time()
            task.cancel()
            await asyncio.wait([task])
            assert loop.time() - began == pytest.approx(5.0)
            assert task.cancelled()
            assert ran == ["unknown"]
            assert driver.sessions[0].closed
            driver.hang = False

    run_virtual(main)


def test_hooks_are_not_lost_with_a_cancelled_caller() -> None:
    """Who is cancelled while its hooks run leaves; the hooks run on, and close() waits for them."""

    async def main() -> None:
        ran: list[Any] = []
        async with Pool(StubDriver(), clock=VirtualClock()) as pool:

            async def hook() -> None:
                await asyncio.sleep(1)
                ran.append("done")

            async def transact() -> None:
                async with pool.transaction() as tx:
                    tx.on_commit(hook)

            task = asyncio.create_task(transact())
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.wait([task])
            assert ran == []
        assert ran == ["done"]

    run_virtual(main)


async def test_hooks_of_an_attempt_that_is_run_again(tmp_path: Path) -> None:
    """They are dropped, but for those that clean up after every attempt."""
    ran: list[str] = []
    attempts: list[Transaction] = []

    async def work(tx: Transaction) -> None:
        attempts.append(tx)
        number = len(attempts)
        tx.on_rollback(lambda: ran.append(f"{number} rolled back"))
        tx.on_rollback(lambda: ran.append(f"{number} cleaned up"), retried=True)
        tx.on_commit(lambda: ran.append(f"{number} committed"))
        if number < 3:
            busy = sqlite3.OperationalError("database is locked")
            busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise busy if number == 1 else ValueError

    async with Pool(f"sqlite:///{tmp_path}/test.db") as pool:
        with pytest.raises(ValueError):
            await pool.run(work)
        await pool.run(work)
    assert ran == ["1 cleaned up", "2 rolled back", "2 cleaned up", "3 committed"]


async def test_the_root_of_a_savepoint(tmp_path: Path) -> None:
    """It is the transaction that the savepoint is in, not another that happens to be open."""
    async with Pool(f"sqlite:///{tmp_path}/a.db") as pool, pool.transaction(readonly=True) as outer:
        async with pool.transaction(independent=True, readonly=True) as other:
            async with other.transaction() as inner, inner.transaction() as innermost:
                assert innermost.root is inner.root is other.root is other
                assert other.outer is outer
        assert outer.root is outer
