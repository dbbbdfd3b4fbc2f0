"""Waiting that a cancellation does not end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poolkit.transaction.steadfast import Steadfast


async def outcome(
    work: Awaitable[object], grace: float = 10.0, give_up: Callable[[], None] = lambda: None
) -> tuple[object, asyncio.CancelledError | None]:
    """Return what came out, and the cancellation that was noted meanwhile."""
    steadfast = Steadfast(work, grace, give_up)
    try:
        return await steadfast, steadfast.cancelled
    except (Exception, asyncio.CancelledError) as error:
        return error, steadfast.cancelled


async def wait_for(future: asyncio.Future[object]) -> object:
    """Wait, as a driver waits for the server."""
    return await future


@pytest.fixture
async def future() -> asyncio.Future[object]:
    """What the work waits for."""
    return asyncio.get_running_loop().create_future()


async def begun(
    work: Awaitable[object], grace: float = 10.0, give_up: Callable[[], None] = lambda: None
) -> asyncio.Task[tuple[object, asyncio.CancelledError | None]]:
    """Return the task that waits, as soon as it does."""
    task = asyncio.create_task(outcome(work, grace, give_up))
    await asyncio.sleep(0)
    return task


async def test_it_passes_on_results_and_errors() -> None:
    """Without a cancellation it is an await."""
    loop = asyncio.get_running_loop()
    done, failed = loop.create_future(), loop.create_future()
    first, second = await begun(wait_for(done)), await begun(wait_for(failed))
    done.set_result("result")
    failed.set_exception(KeyError("gone"))
    assert await first == ("result", None)
    error, cancelled = await second
    assert isinstance(error, KeyError)
    assert cancelled is None


async def test_a_cancelled_caller_gets_the_result(future: asyncio.Future[object]) -> None:
    """The first cancellation is noted, with its message; the work goes on and is waited for."""
    task = await begun(wait_for(future))
    task.cancel("first")
    task.cancel("second")
    await asyncio.sleep(0)
    assert not future.cancelled()
    future.set_result("result")
    result, cancelled = await task
    assert result == "result"
    assert cancelled is not None
    assert cancelled.args == ("first",)


async def test_a_cancellation_before_the_first_wait(future: asyncio.Future[object]) -> None:
    """Neither does one reach the work that came before it began to wait."""

    async def cancel_oneself() -> tuple[object, asyncio.CancelledError | None]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await outcome(wait_for(future))

    task = asyncio.create_task(cancel_oneself())
    await asyncio.sleep(0)
    future.set_result("result")
    result, cancelled = await task
    assert result == "result"
    assert cancelled is not None


async def test_what_it_waited_for_was_torn_down(future: asyncio.Future[object]) -> None:
    """A cancellation of the future itself is an error of the work, not of the caller."""
    task = await begun(wait_for(future))
    future.cancel()
    result, cancelled = await task
    assert isinstance(result, asyncio.CancelledError)
    assert cancelled is None


async def test_a_bare_yield(future: asyncio.Future[object]) -> None:
    """Work that only yields to the loop is seen through as well."""

    async def yield_thrice() -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return "result"

    task = await begun(yield_thrice())
    task.cancel()
    result, cancelled = await task
    assert result == "result"
    assert cancelled is not None


async def test_grace_ends(future: asyncio.Future[object]) -> None:
    """When giving up does not end the work, it gets a TimeoutError."""
    given_up: list[bool] = []
    task = await begun(wait_for(future), 0.001, lambda: given_up.append(True))
    task.cancel()
    async with asyncio.timeout(10):
        result, cancelled = await task
    assert given_up == [True]
    assert isinstance(result, TimeoutError)
    assert cancelled is not None


async def test_giving_up_ends_the_work(future: asyncio.Future[object]) -> None:
    """When giving up does end it, how it ended is what counts."""
    task = await begun(
        wait_for(future), 0.001, lambda: future.set_exception(ConnectionError("dropped"))
    )
    task.cancel()
    async with asyncio.timeout(10):
        result, _ = await task
    assert isinstance(result, ConnectionError)


async def test_work_that_goes_on_after_the_grace(future: asyncio.Future[object]) -> None:
    """Work that handles the TimeoutError may still come to its end."""

    async def tidy_up() -> str:
        try:
            await future
        except TimeoutError:
            await asyncio.sleep(0.001)
        return "tidied"

    task = await begun(tidy_up(), 0.001)
    task.cancel()
    async with asyncio.timeout(10):
        result, cancelled = await task
    assert result == "tidied"
    assert cancelled is not None
