"""`RedisBus`: events on a real server, and what happens when that server does not behave."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.contracts.bus import BusContract, Recorder, about, listening
from tests.contracts.tier import load
from tests.servers.redis import RedisServer
from tiercache.bus.redis import RedisBus
from tiercache.errors import TierError
from tiercache.tiers.base import Ask
from tiercache.tiers.redis import RedisTier

STREAM = "{tc1:app}:e"

TRIM = """
for n = 1, 3 do
  local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][2]
  redis.call('XADD', KEYS[1], '*', 'id', tail[2], 'n', tail[4] + 1, 'e', ARGV[1])
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', 1)
"""


class OneServer:
    """The medium is a server; every bus has connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def bus(self) -> RedisBus:
        """Return another bus of the same cache name."""
        return RedisBus(RedisTier(self._url).server, "app")


class TestRedisBus(BusContract):
    @pytest.fixture
    def medium(self, redis_url: str) -> OneServer:
        """A stream on the shared server."""
        return OneServer(redis_url)


@contextlib.asynccontextmanager
async def joined(server: RedisServer) -> AsyncIterator[tuple[RedisBus, Recorder]]:
    """A bus with a listener, closed at the end."""
    bus = OneServer(server.url).bus()
    async with listening(bus) as recorder:
        try:
            yield bus, recorder
        finally:
            await bus.aclose()


async def test_events_ride_on_the_deletions_of_the_tier(redis_url: str) -> None:
    """A tier of the same server publishes with `invalidate` and `clear`, after the deletion."""
    tier = RedisTier(redis_url)
    tier.bind("app")
    bus, stranger = RedisBus(tier.server, "app"), RedisBus(RedisTier(redis_url).server, "app")
    assert bus.rides_on(tier)
    assert not stranger.rides_on(tier)
    await load(tier, "a", b"v", ("t",))
    async with listening(bus) as recorder:
        await tier.invalidate(["a"], ["t"], [about("a"), about("b")])
        assert await tier.read([Ask("a", None)]) == [None]
        await tier.clear([about("all")])
        await recorder.until(lambda: len(recorder.names) == 3)
        assert recorder.names == ["a", "b", "all"]
    await tier.aclose()


async def test_caches_of_other_names_hear_nothing(redis_url: str) -> None:
    """Every namespace has a stream of its own."""
    server = RedisTier(redis_url).server
    one, other = RedisBus(server, "app"), RedisBus(server, "app2")
    async with listening(one) as here, listening(other) as there:
        await one.publish([about("a")])
        await other.publish([about("b")])
        await here.until(lambda: bool(here.events))
        await there.until(lambda: bool(there.events))
        assert (here.names, there.names) == (["a"], ["b"])
    await server.aclose()


async def test_a_lost_connection_is_replayed_without_a_gap(private_redis: RedisServer) -> None:
    """Events sent while the reader was away are delivered after it is back, and no gap is told."""
    async with joined(private_redis) as (bus, recorder):
        gaps = len(recorder.gaps)
        private_redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await bus.publish([about(str(n)) for n in range(10)])
        await recorder.until(lambda: len(recorder.names) == 10)
        await recorder.until_connected()
        assert recorder.names == [str(n) for n in range(10)]
        assert len(recorder.gaps) == gaps
        assert "disconnected" in recorder.log


async def test_an_emptied_server_is_a_gap_though_nothing_is_sent(
    private_redis: RedisServer,
) -> None:
    """After FLUSHALL a stream that is silent is noticed by the heartbeat; events come again."""
    async with joined(private_redis) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: bool(recorder.events))
        gaps = len(recorder.gaps)
        private_redis.cli("FLUSHALL")
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await bus.publish([about("b")])
        await recorder.until(lambda: "b" in recorder.names)
        assert len(recorder.gaps) == gaps + 1


async def test_an_emptied_server_is_a_gap_before_the_next_event(
    private_redis: RedisServer,
) -> None:
    """FLUSHALL and an event right behind it: the gap is told first, the event all the same."""
    async with joined(private_redis) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: bool(recorder.events))
        recorder.log.clear()
        private_redis.cli("FLUSHALL")
        await bus.publish([about("b")])
        await recorder.until(lambda: "b" in recorder.names or bool(recorder.gaps[1:]))
        await bus.publish([about("c")])
        await recorder.until(lambda: "c" in recorder.names)
        assert recorder.log[0] == "gap"
        assert recorder.log.count("gap") == 1


async def test_a_trimmed_stream_is_a_gap(private_redis: RedisServer) -> None:
    """A reader that was away longer than the stream remembers is told so."""
    async with joined(private_redis) as (bus, recorder):
        await bus.publish([about("a")])
        await recorder.until(lambda: bool(recorder.events))
        gaps = len(recorder.gaps)
        # The server forgets the events in the very step that makes them.
        private_redis.cli(
            "EVAL",
            TRIM,
            1,
            STREAM,
            about("trimmed"),
        )
        await recorder.until(lambda: len(recorder.gaps) > gaps)
        await bus.publish([about("b")])
        await recorder.until(lambda: "b" in recorder.names)
        assert len(recorder.gaps) == gaps + 1


async def test_a_restart_with_empty_memory_is_a_gap(private_redis: RedisServer) -> None:
    """A server that was killed and comes back empty: disconnected, gap, connected, events."""
    async with joined(private_redis) as (bus, recorder):
        recorder.log.clear()
        await asyncio.to_thread(private_redis.kill)
        await recorder.until(lambda: not recorder.is_connected)
        with pytest.raises(TierError) as caught:
            await bus.publish([about("lost")])
        assert caught.value.unavailable
        await asyncio.to_thread(private_redis.start)
        await recorder.until_connected()
        assert recorder.log[:3] == ["disconnected", "gap", "connected"]
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["b"])


async def test_a_stream_that_begins_anew_in_the_past_is_a_gap(private_redis: RedisServer) -> None:
    """A server that comes back empty, its clock behind the last event, is joined all the same."""
    last = "9999999999999-0"
    private_redis.cli("XADD", STREAM, last, "id", "s", "n", "1", "e", about("future"))
    async with joined(private_redis) as (bus, recorder):
        gaps = len(recorder.gaps)
        await asyncio.to_thread(private_redis.kill)
        await recorder.until(lambda: not recorder.is_connected)
        await asyncio.to_thread(private_redis.start)
        await recorder.until_connected()
        await bus.publish([about("b")])
        await recorder.until(lambda: recorder.names == ["b"])
        assert len(recorder.gaps) == gaps + 1


async def test_a_server_that_hangs_is_disconnected_and_replayed(
    private_redis: RedisServer,
) -> None:
    """SIGSTOP is noticed by the watchdog, and what was sent meanwhile comes without a gap."""
    async with joined(private_redis) as (bus, recorder):
        gaps = len(recorder.gaps)
        await asyncio.to_thread(private_redis.pause)
        await recorder.until(lambda: not recorder.is_connected)
        with pytest.raises(TierError):
            await bus.publish([about("unknown")])
        await asyncio.to_thread(private_redis.resume)
        await recorder.until_connected()
        await bus.publish([about("b")])
        await recorder.until(lambda: "b" in recorder.names)
        assert len(recorder.gaps) == gaps


async def test_a_bus_may_be_started_before_its_server(private_redis: RedisServer) -> None:
    """`run` waits for a server that is not there yet."""
    private_redis.kill()
    bus = OneServer(private_redis.url).bus()
    recorder = Recorder()
    running = asyncio.create_task(bus.run(recorder))
    await asyncio.to_thread(private_redis.start)
    await recorder.until_connected()
    assert recorder.log == ["gap", "connected"]
    running.cancel()
    await asyncio.wait([running])
    await bus.aclose()


async def test_a_full_server_still_takes_events() -> None:
    """With its memory full, a deletion and its event are let in."""
    with RedisServer(maxmemory="1mb", maxmemory_policy="noeviction") as server:
        server.cli("CONFIG", "SET", "maxmemory", "1")
        tier = RedisTier(server.url)
        tier.bind("app")
        bus = RedisBus(tier.server, "app")
        async with listening(bus) as recorder:
            await tier.invalidate(["a"], ["t"], [about("a")])
            await tier.clear([about("all")])
            await bus.publish([about("b")])
            await recorder.until(lambda: len(recorder.names) == 3)
        await tier.aclose()


async def test_an_idle_stream_is_proven_complete_again_and_again(
    private_redis: RedisServer,
) -> None:
    """Without any event, `proven` moves on and never lies in the future."""
    async with joined(private_redis) as (bus, recorder):
        first = bus.proven
        before = time.monotonic()
        rounds = 0

        def counted(connected: bool) -> None:
            nonlocal rounds
            rounds += connected
            recorder._note("again")

        recorder.connected = counted  # type: ignore[method-assign]
        await recorder.until(lambda: rounds >= 3)
        assert first < bus.proven <= time.monotonic()
        assert bus.proven > before - 2


async def test_the_stream_is_bounded(redis_url: str, redis_server: RedisServer) -> None:
    """A stream keeps about ten thousand events and drops the oldest."""
    bus = OneServer(redis_url).bus()
    for _ in range(12):
        await bus.publish([about("x")] * 1000)
    assert 10_000 <= redis_server.cli("XLEN", STREAM) < 10_200
    await bus.aclose()
