"""One connection: pipelines, refusals, and that nothing half-read is ever used again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError, ResponseError

from tests.servers.redis import RedisServer
from tiercache._redis import frames
from tiercache._redis.address import Address
from tiercache._redis.link import Link
from tiercache._redis.scripts import FILL, TOKEN


@pytest_asyncio.fixture
async def link(redis_url: str) -> AsyncIterator[Link]:
    """A link to the shared server."""
    link = await Link.open(Address.parse(redis_url), {})
    yield link
    await link.close()


async def test_replies_come_in_the_order_of_the_commands(link: Link) -> None:
    """Refusals stand among the replies and break nothing off."""
    replies = await link.exchange(
        [
            (b"SET", b"a", b"\x00\r\n$3\r\n"),
            (b"NOSUCH",),
            (b"GET", b"a"),
            (b"INCR", b"a"),
            (b"GET", b"none"),
            (b"MGET", b"a", b"none"),
        ]
    )
    assert isinstance(replies[1], ResponseError)
    assert isinstance(replies[3], ResponseError)
    assert [replies[0], replies[2], replies[4]] == [b"OK", b"\x00\r\n$3\r\n", None]
    assert replies[5] == [b"\x00\r\n$3\r\n", None]


async def test_the_run_is_that_of_the_server(link: Link, redis_server: RedisServer) -> None:
    """A link knows whose life it leads to."""
    assert link.run == frames.life(redis_server.cli("INFO", "server")["run_id"])


async def test_unknown_scripts_are_loaded_in_place(link: Link, redis_server: RedisServer) -> None:
    """Of several commands only the scripts that failed are sent again."""
    redis_server.cli("SCRIPT", "FLUSH")
    replies = await link.exchange(
        [
            (b"INCR", b"counter"),
            TOKEN.on((b"t",), b"one", b"-1"),
            TOKEN.on((b"t",), b"two", b"-1"),
            FILL.on((b"s",), b"", b"v" * 40, b"-1"),
            (b"INCR", b"counter"),
        ]
    )
    assert replies == [1, b"one", b"one", 1, 2]


async def test_an_interrupted_exchange_closes_the_link(link: Link) -> None:
    """Cancelled between question and answer, a link gives no answer any more."""
    task = asyncio.create_task(link.exchange([(b"BLPOP", b"nothing", b"0")]))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not link._connection.is_connected


async def test_any_failure_between_the_replies_closes_the_link() -> None:
    """Even where redis-py would keep the connection, no reply is left for the next caller."""

    class Confused:
        def __init__(self) -> None:
            self.replies = [b"one"]
            self.closed = False

        async def send_packed_command(self, command: bytes, check_health: bool) -> None:
            pass

        async def read_response(self) -> bytes:
            return self.replies.pop()  # IndexError on the second

        async def disconnect(self, nowait: bool) -> None:
            self.closed = True

    connection = Confused()
    with pytest.raises(IndexError):
        await Link(connection, b"").exchange([(b"PING",), (b"PING",)])
    assert connection.closed


async def test_a_server_that_hangs_up_is_an_error(link: Link) -> None:
    """The end of the connection is raised, not taken for an answer."""
    with pytest.raises((ConnectionError, OSError)):
        await link.exchange([(b"QUIT",), (b"PING",)])
    assert not link._connection.is_connected


async def test_a_node_of_a_cluster_is_refused() -> None:
    """One node of a cluster is no server to keep a cache on."""
    with RedisServer(cluster_enabled="yes") as server:
        with pytest.raises(ConnectionError, match="it is a cluster node"):
            await Link.open(Address.parse(server.url), {})


async def test_the_server_knows_who_is_connected(link: Link, redis_server: RedisServer) -> None:
    """Connections carry a name for whoever looks after the server."""
    assert "name=tiercache " in redis_server.cli("CLIENT", "LIST")
    assert link.run
