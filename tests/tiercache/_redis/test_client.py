"""The connections of one loop: pipelines per tick, bounds, failures that reach all who wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from redis.exceptions import ReadOnlyError

from tests.servers.redis import RedisServer
from tiercache._redis.address import Address
from tiercache._redis.client import BATCH, Client, RunChanged
from tiercache._redis.scripts import FILL
from tiercache._redis.wire import Call, Wire
from tiercache.errors import TierError


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many commands were written together, each time."""
    sizes: list[int] = []
    send = Wire.send

    def recorded(self: Wire, calls: Sequence[Call]) -> None:
        sizes.append(sum(len(call.commands) for call in calls))
        send(self, calls)

    monkeypatch.setattr(Wire, "send", recorded)
    return sizes


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


async def test_the_calls_of_one_turn_go_out_together(client: Client, sizes: list[int]) -> None:
    """What is asked before anybody waits is one writing, and everybody gets his own answer."""
    answers = await asyncio.gather(*(echo(client, b"%d" % n) for n in range(100)))
    assert answers == [b"%d" % n for n in range(100)]
    assert sizes == [100]


async def test_a_lone_call_goes_at_once(client: Client, sizes: list[int]) -> None:
    """Where nothing is under way the call is written before anybody else has a turn."""
    await client.call([(b"PING",)], "test", None)
    sizes.clear()
    call = client.call([(b"PING",)], "test", None)
    assert sizes == [1]
    assert (await call).replies == [b"PONG"]


async def test_nobody_waits_for_the_answers_of_others(client: Client, sizes: list[int]) -> None:
    """A call is sent while an earlier one is not answered yet, on the same connection."""
    await client.call([(b"PING",)], "test", None)
    slow = client.call([(b"BLPOP", b"none", b"0.05")], "test", None)
    quick = client.call([(b"ECHO", b"x")], "test", None)
    await asyncio.sleep(0)
    assert sizes == [1, 1, 1]
    assert not slow.done()
    assert (await quick).replies == [b"x"]
    assert slow.result().replies == [None]
    assert len(client._wires) == 1


async def test_a_connection_has_a_limit(client: Client, sizes: list[int]) -> None:
    """More than fits goes to another connection, and waits where there may be none."""
    answers = await asyncio.gather(*(echo(client, b"%d" % n) for n in range(3 * BATCH + 10)))
    assert answers == [b"%d" % n for n in range(3 * BATCH + 10)]
    assert sizes[0] == max(sizes) == BATCH
    assert sum(sizes) == 3 * BATCH + 10
    async with asyncio.timeout(5):
        while len(client._wires) < 2:
            await asyncio.sleep(0.001)


async def test_a_call_of_many_commands_goes_as_a_whole(client: Client, sizes: list[int]) -> None:
    """A call is never divided, however long it is."""
    asked = [client.call([(b"ECHO", b"x")] * (2 * BATCH), "test", None) for _ in range(3)]
    for answer in await asyncio.gather(*asked):
        assert answer.replies == [b"x"] * (2 * BATCH)
    assert sizes == [2 * BATCH] * 3


async def test_a_cancelled_call_that_still_waits_is_not_sent(
    client: Client, sizes: list[int]
) -> None:
    """Who leaves the queue leaves nothing behind."""
    calls = [echo(client, b"%d" % n) for n in range(4)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.wait(calls)
    assert sum(sizes) == 3
    assert calls[3].result() == b"3"


async def test_a_cancelled_call_that_was_sent_shifts_no_answer(client: Client) -> None:
    """The reply to who has left reaches nobody else."""
    await client.call([(b"PING",)], "test", None)
    gone = client.call([(b"ECHO", b"gone")], "test", None)
    stays = client.call([(b"ECHO", b"stays")], "test", None)
    gone.cancel()
    assert (await stays).replies == [b"stays"]


async def test_what_an_old_connection_left_unanswered_is_asked_again(
    private_redis: RedisServer,
) -> None:
    """A connection that has answered before and is closed costs nobody an error, once."""
    client = Client(Address.parse(private_redis.url), {}, timeout=5, max_links=1)
    await client.open()
    first = (await client.call([(b"CLIENT", b"ID")], "test", None)).replies[0]
    killing = client.call([(b"CLIENT", b"KILL", b"ID", b"%d" % first, b"SKIPME", b"no")], "k", None)
    asked = [client.call([(b"ECHO", b"%d" % n)], "test", None) for n in range(3)]
    assert [(await each).replies for each in asked] == [[b"0"], [b"1"], [b"2"]]
    assert (await killing).replies in ([1], [0])  # 0: asked again, of a connection that is gone
    assert (await client.call([(b"CLIENT", b"ID")], "test", None)).replies[0] > first
    await client.aclose()


async def test_unknown_scripts_are_loaded_behind_what_was_sent(
    client: Client, redis_server: RedisServer
) -> None:
    """Calls that meet a server without our scripts, together, all get what they asked for."""
    redis_server.cli("SCRIPT", "FLUSH")
    await client.call([(b"PING",)], "test", None)
    fill = FILL.on((b"slot",), b"identity", b"value", b"-1")
    asked = [
        client.call([(b"ECHO", b"a"), fill, (b"ECHO", b"b")], "test", None),
        client.call([(b"ECHO", b"c")], "test", None),
        client.call([fill], "test", None),
    ]
    answers = await asyncio.gather(*asked)
    assert [answer.replies for answer in answers] == [[b"a", 0, b"b"], [b"c"], [0]]


async def test_a_server_that_became_a_replica_is_left(
    client: Client, redis_server: RedisServer
) -> None:
    """READONLY reaches who asked, and the next one gets another connection."""
    await client.call([(b"PING",)], "test", None)
    [wire] = client._wires
    redis_server.cli("REPLICAOF", "127.0.0.1", "1")
    try:
        answer = await client.call([(b"SET", b"a", b"1")], "test", None)
        assert isinstance(answer.replies[0], ReadOnlyError)
        await client.call([(b"PING",)], "test", None)
        assert wire not in client._wires
    finally:
        redis_server.cli("REPLICAOF", "NO", "ONE")


async def test_a_call_for_another_run_is_not_sent(client: Client) -> None:
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


async def test_a_timeout_condemns_all_connections(private_redis: RedisServer) -> None:
    """After an outage nobody is handed a connection from before it, and nobody waits twice."""
    client = Client(Address.parse(private_redis.url), {}, timeout=0.2, max_links=2)
    await client.open()
    await asyncio.gather(*(echo(client, b"x") for _ in range(BATCH + 1)))
    async with asyncio.timeout(5):
        while len(client._wires) < 2:
            await asyncio.sleep(0.001)
    await asyncio.to_thread(private_redis.pause)
    calls = [client.call([(b"PING",)], f"op{n}", None) for n in range(2 * BATCH + 5)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, TierError) and error.unavailable for error in results)
    assert client._wires == []
    await asyncio.to_thread(private_redis.resume)
    assert (await client.call([(b"PING",)], "test", None)).replies == [b"PONG"]
    await client.aclose()


async def test_a_loop_that_stood_still_condemns_nobody(client: Client) -> None:
    """Answers that came while the loop was held count, however late they are read."""
    client._timeout = 0.05
    await client.call([(b"PING",)], "test", None)
    call = client.call([(b"PING",)], "test", None)
    time.sleep(0.2)
    assert (await call).replies == [b"PONG"]


async def test_a_reply_to_nothing_ends_a_connection(
    client: Client, redis_server: RedisServer
) -> None:
    """A server that says more than it was asked cannot be trusted to answer in order."""
    await client.call([(b"SUBSCRIBE", b"channel")], "test", None)
    [wire] = client._wires
    redis_server.cli("PUBLISH", "channel", "unasked")
    async with asyncio.timeout(5):
        while wire in client._wires:
            await asyncio.sleep(0.001)
    assert (await client.call([(b"PING",)], "test", None)).replies == [b"PONG"]


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
