"""A caller that is cancelled, and those who wait beside it."""

import asyncio

import pytest

from tiercache import Cache


async def turn(times: int = 10) -> None:
    """Let other tasks run."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_the_first_caller_is_cancelled(cache: Cache) -> None:
    """The others get the value: one load, not cancelled with its first caller."""
    calls = []
    gate = asyncio.Event()

    @cache.cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        await gate.wait()
        return 5

    first, second = asyncio.create_task(load()), asyncio.create_task(load())
    await turn()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await second == 5
    assert calls == [1]


async def test_a_joiner_is_cancelled(cache: Cache) -> None:
    """One who joined and is cancelled takes nothing from the others."""
    gate = asyncio.Event()

    @cache.cached(ttl=60)
    async def load() -> int:
        await gate.wait()
        return 5

    first, second = asyncio.create_task(load()), asyncio.create_task(load())
    await turn()
    second.cancel()
    await turn()
    gate.set()
    assert await first == 5


async def test_nobody_waits_any_more(cache: Cache) -> None:
    """A load that nobody waits for is cancelled, and the next caller starts a new one."""
    ended = []
    gate = asyncio.Event()

    @cache.cached(ttl=60)
    async def load() -> int:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            ended.append(1)
            raise
        return 5

    tasks = [asyncio.create_task(load()) for _ in range(3)]
    await turn()
    for task in tasks:
        task.cancel()
    await turn()
    assert ended == [1]
    gate.set()
    assert await load() == 5


async def test_a_loader_that_cancels_itself(cache: Cache) -> None:
    """A loader that ends with CancelledError is not tried again and again."""
    calls = []

    @cache.cached(ttl=60)
    async def load() -> int:
        calls.append(1)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await load()
    assert calls == [1]


async def test_cancelled_at_every_step(cache: Cache) -> None:
    """Whenever a caller is cancelled, the next one gets a value."""
    for steps in range(8):

        async def load() -> int:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return 5

        task = asyncio.create_task(cache.get_or_load(f"k{steps}", load))
        await turn(steps)
        task.cancel()
        await asyncio.wait([task])
        assert await asyncio.wait_for(cache.get_or_load(f"k{steps}", load), 5) == 5
