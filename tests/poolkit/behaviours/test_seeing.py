"""Behaviours 38 to 40: leaks, slow statements, forks."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable

import pytest

from poolkit import Pool
from poolkit.testing import StubDriver, VirtualClock, run_virtual

MakePool = Callable[..., Pool]


def test_b38_leaks_are_reported_and_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    """A report names the task, where it acquired and where it is stuck; a notice follows."""

    async def leak(pool: Pool) -> None:
        async with pool.acquire():
            await _stuck()

    async def _stuck() -> None:
        await asyncio.sleep(100)

    async def main() -> None:
        async with Pool(StubDriver(), leak_threshold=10, clock=VirtualClock()) as pool:
            async with pool.acquire():
                await asyncio.sleep(5)
            assert caplog.text == ""
            task = asyncio.create_task(leak(pool), name="the-leaking-task")
            await asyncio.sleep(60)
            report = caplog.messages[0]
            assert "the-leaking-task" in report
            assert f"{__file__}:" in report
            assert " in leak" in report
            assert " in _stuck" in report or " in leak; its task" in report
            assert len(caplog.messages) == 1  # once
            await task
            assert "came back" in caplog.messages[1]

    run_virtual(main)


async def test_b39_slow_statements_are_logged(
    dsn: str, make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    """Above slow_query the text is logged, never the parameters; below it nothing is."""
    pool = make_pool(dsn, slow_query=1000)
    await pool.fetchval("SELECT 1")
    assert caplog.text == ""
    slow = make_pool(dsn, slow_query=1e-9)
    await slow.execute("CREATE TABLE t (x text)")
    await slow.execute("INSERT INTO t VALUES ($1)", "a secret")
    async with slow.transaction() as tx:
        await tx.fetch("SELECT x FROM t")
    assert [message.partition(": ")[2].partition(": ")[2] for message in caplog.messages] == [
        "CREATE TABLE t (x text)",
        "INSERT INTO t VALUES ($1)",
        "SELECT x FROM t",
    ]
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    assert "a secret" not in caplog.text


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_b40_a_forked_child_has_a_fresh_pool(dsn: str) -> None:
    """The child's pool opens anew; the parent's connections are none the worse."""

    async def count(pool: Pool) -> int:
        value: int = await pool.fetchval("SELECT count(*) FROM t")
        return value

    with asyncio.Runner() as runner:
        pool = Pool(dsn, max_size=2)
        runner.run(pool.open())
        runner.run(pool.execute("CREATE TABLE t (x int)"))
        child = os.fork()
        if child == 0:
            code = 1
            try:

                async def main() -> None:
                    async with pool:
                        await pool.execute("INSERT INTO t VALUES (1)")
                        assert await count(pool) == 1

                asyncio.run(main())
                code = 0
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert runner.run(count(pool)) == 1
        runner.run(pool.close())
