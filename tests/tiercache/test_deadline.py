"""`Deadline`: a time limit that knows whose fault it was."""

import asyncio
import time

import pytest

from tiercache._deadline import STALLED, Deadline


async def test_what_is_quick_passes() -> None:
    """Nothing happens to what ends in time, nor to its task later."""
    async with Deadline(30):
        await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


async def test_what_never_ends_is_cancelled() -> None:
    """The time is over: what is inside is cancelled and a TimeoutError leaves the block."""
    inside = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        async with Deadline(0.01):
            await inside

    with pytest.raises(TimeoutError):
        await wait()
    assert inside.cancelled()
    assert asyncio.current_task().cancelling() == 0


async def test_errors_pass_unchanged() -> None:
    """An error from inside is not touched."""
    with pytest.raises(KeyError):
        async with Deadline(30):
            raise KeyError("x")


async def test_a_cancelled_caller_stays_cancelled() -> None:
    """A cancellation from outside is not taken for a timeout."""

    async def wait() -> None:
        async with Deadline(30):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_that_is_there_counts() -> None:
    """An answer that came while the loop stood still past the limit is taken."""
    answer = asyncio.get_running_loop().create_future()
    async with Deadline(STALLED):
        asyncio.get_running_loop().call_soon(time.sleep, 4 * STALLED)
        asyncio.get_running_loop().call_soon(answer.set_result, 1)
        assert await answer == 1


async def test_the_limit_begins_anew_once_after_a_stall() -> None:
    """A loop that stood still gives the other side a second chance, not a third."""
    loop = asyncio.get_running_loop()
    limit = 2 * STALLED
    started = loop.time()

    async def stall() -> None:
        async with Deadline(limit):
            loop.call_soon(time.sleep, 2 * limit)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await stall()
    assert loop.time() - started >= 3 * limit
