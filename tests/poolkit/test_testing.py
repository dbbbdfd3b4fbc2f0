"""The doubles do what they say."""

import asyncio
import time
from typing import Any

import pytest

from poolkit.testing import FaultProxy, VirtualLoop, cancel_everywhere, run_virtual


def test_virtual_time_jumps() -> None:
    """An hour of waiting takes no time, and timers fire in order."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for at in (30.0, 10.0, 20.0):
            loop.call_later(at, lambda: seen.append(loop.time()))
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        assert loop.time() == pytest.approx(3660)
        return seen

    began = time.monotonic()
    assert run_virtual(main) == pytest.approx([10.0, 20.0, 30.0])
    assert time.monotonic() - began < 30


def test_a_virtual_deadlock_is_an_error() -> None:
    """Where nothing is due any more the loop says so instead of waiting."""
    with pytest.raises(RuntimeError, match="wait for ever"):
        loop = VirtualLoop()
        try:
            loop.run_until_complete(asyncio.Event().wait())
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


async def test_cancel_everywhere_finds_a_leak() -> None:
    """A scenario that leaks at one of its waits is found out, at that wait."""
    held = 0

    async def scenario() -> None:
        nonlocal held
        await asyncio.sleep(0)
        held += 1
        await asyncio.sleep(0)  # a cancellation here leaks
        held -= 1

    leaks: list[int] = []

    async def check(at: int) -> None:
        nonlocal held
        if held:
            leaks.append(at)
        held = 0

    assert await cancel_everywhere(scenario, check) == 2
    assert leaks == [2]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@pytest.fixture
async def echo() -> Any:
    """The port of a server that says what it hears."""
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_the_proxy_counts_and_breaks(echo: int) -> None:
    """It counts round trips, drips, swallows, hangs up after a word, and heals."""
    async with FaultProxy("127.0.0.1", echo) as proxy, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

        async def say(text: bytes) -> bytes:
            writer.write(text)
            return await reader.readexactly(len(text))

        for _ in range(3):
            assert await say(b"hello") == b"hello"
        assert proxy.round_trips == 3
        proxy.piece = 1
        assert await say(b"drip") == b"drip"
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await say(b"lost?")
        proxy.heal()
        assert await reader.readexactly(5) == b"lost?"
        proxy.kill_after = b"COMMIT"
        writer.write(b"COMMIT")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(6)
        writer.close()
        proxy.heal()
        await proxy.refuse()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", proxy.port)
