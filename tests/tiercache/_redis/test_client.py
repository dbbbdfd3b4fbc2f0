"""The connections of one loop: pipelines per tick, bounds, failures that reach all who wait."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.servers.redis import RedisServer
from tiercache._redis.address import Address
from tiercache._redis.client import BATCH, Client, RunChanged
from tiercache._redis.link import Command, Link, Reply
from tiercache.errors import TierError


class Tape:
    """The sizes of the pipelines that went out, and a way to hold them up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = asyncio.Event()
        self.open.set()


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Record what every link sends."""
    tape = Tape()
    exchange = Link.exchange

    async def recorded(self: Link, commands: Sequence[Command]) -> list[Reply]:
        tape.sizes.append(len(commands))
        await tape.open.wait()
        return await exchange(self, commands)

    monkeypatch.setattr(Link, "exchange", recorded)
    return tape


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    """A client of two connections."""
    client = Client(Address.parse(redis_url), {}, timeout=5, max_links=2)
    await client.open()
    yield client
    await client.aclose()


def echo(client: Client, text: bytes) -> asyncio.Future[bytes]:
    """Ask for an echo."""

    async def ask() -> bytes:
        return (await client.call([(b"ECHO", text)], "test", None)).replies[0]

    return asyncio.ensure_future(ask())


async def test_the_calls_of_one_tick_are_one_pipeline(client: Client, tape: Tape) -> None:
    """What is asked before anybody waits goes out together, and everybody gets his own answer."""
    answers = await asyncio.gather(*(echo(client, b"%d" % n) for n in range(100)))
    assert answers == [b"%d" % n for n in range(100)]
    assert tape.sizes == [100]


async def test_a_pipeline_has_a_limit(client: Client, tape: Tape) -> None:
    """More calls than fit are divided; a call of many commands goes as a whole."""
    await asyncio.gather(*(echo(client, b"x") for _ in range(BATCH + 10)))
    assert tape.sizes == [BATCH, 10]
    answer = await client.call([(b"ECHO", b"x")] * (2 * BATCH), "test", None)
    assert answer.replies == [b"x"] * (2 * BATCH)
    assert tape.sizes[2:] == [2 * BATCH]


async def test_beyond_its_connections_calls_wait_together(client: Client, tape: Tape) -> None:
    """With every connection under way, what comes goes out as one when the first is free."""
    tape.open.clear()
    calls = []
    for n in range(10):
        calls.append(echo(client, b"%d" % n))
        while n < 2 and len(tape.sizes) <= n:
            await asyncio.sleep(0)
    tape.open.set()
    assert await asyncio.gather(*calls) == [b"%d" % n for n in range(10)]
    assert tape.sizes[:2] == [1, 1]
    assert sum(tape.sizes) == 10
    assert len(tape.sizes) <= 4


async def test_a_cancelled_call_that_still_waits_is_not_sent(client: Client, tape: Tape) -> None:
    """Who leaves the queue leaves nothing behind."""
    calls = [echo(client, b"%d" % n) for n in range(4)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.wait(calls)
    assert tape.sizes == [3]
    assert calls[3].result() == b"3"


async def test_a_call_for_another_run_is_not_sent(client: Client, tape: Tape) -> None:
    """Whoever means an earlier life of the server is told of the present one."""
    run = (await client.call([(b"PING",)], "test", None)).run
    with pytest.raises(RunChanged) as caught:
        await client.call([(b"SET", b"a", b"1")], "test", b"another")
    assert caught.value.run == client.run == run
    answer = await client.call([(b"EXISTS", b"a")], "test", run)
    assert answer.replies == [0]


async def test_all_who_wait_are_told_of_a_failure(private_redis: RedisServer) -> None:
    """A server that is gone fails those in the pipeline and those behind it, each by its name."""
    client = Client(Address.parse(private_redis.url), {}, timeout=5, max_links=1)
    await client.open()
    private_redis.kill()
    calls = [client.call([(b"PING",)], f"op{n}", None) for n in range(5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(error, "operation", None) for error in results] == [f"op{n}" for n in range(5)]
    assert all(isinstance(error, TierError) and error.unavailable for error in results)
    await asyncio.to_thread(private_redis.start)
    assert (await client.call([(b"PING",)], "test", None)).replies == [b"PONG"]
    await client.aclose()


async def test_a_timeout_condemns_the_idle_connections_too(private_redis: RedisServer) -> None:
    """After an outage nobody is handed a connection from before it."""
    client = Client(Address.parse(private_redis.url), {}, timeout=0.2, max_links=4)
    await client.open()
    blocking = [client.call([(b"BLPOP", b"none", b"0.05")], "test", None)]
    for _ in range(3):
        while client._starting:
            await asyncio.sleep(0)
        blocking.append(client.call([(b"BLPOP", b"none", b"0.05")], "test", None))
    await asyncio.gather(*blocking)
    assert len(client._idle) > 1
    await asyncio.to_thread(private_redis.pause)
    with pytest.raises(TierError):
        await client.call([(b"PING",)], "test", None)
    assert client._idle == []
    await asyncio.to_thread(private_redis.resume)
    assert (await client.call([(b"PING",)], "test", None)).replies == [b"PONG"]
    await client.aclose()


async def test_closing_waits_for_those_under_way(client: Client) -> None:
    """Calls that were made before the end are answered."""
    calls = [echo(client, b"%d" % n) for n in range(10)]
    await asyncio.sleep(0)
    await client.aclose()
    assert await asyncio.gather(*calls) == [b"%d" % n for n in range(10)]
    assert client.closed


async def test_closing_gives_up_on_a_server_that_hangs(private_redis: RedisServer) -> None:
    """A stopped server delays the end by the timeout, not for ever."""
    client = Client(Address.parse(private_redis.url), {}, timeout=0.1, max_links=1)
    await client.open()
    await client.call([(b"PING",)], "test", None)
    await asyncio.to_thread(private_redis.pause)
    call = client.call([(b"PING",)], "test", None)
    await client.aclose()
    with pytest.raises(TierError):
        await call
    await asyncio.to_thread(private_redis.resume)
