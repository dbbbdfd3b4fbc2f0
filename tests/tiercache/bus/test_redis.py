"""`RedisBus`: events on a real server, and what happens when that server does not behave."""

import asyncio

import pytest

from tests.contracts.bus import (
    SharedBusContract,
    SharedMedium,
    about,
    is_one_gap,
    joined,
    listening,
    sits_out_a_pause,
    trying,
)
from tests.contracts.tier import load
from tests.servers.redis import RedisServer
from tiercache._redis.link import Link
from tiercache.bus.base import Listener
from tiercache.bus.redis import PAUSE, RedisBus
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


def bus_on(url: str, name: str = "app") -> RedisBus:
    """Return a bus with connections of its own, as another process would have."""
    return RedisBus(RedisTier(url).server, name)


class TestRedisBus(SharedBusContract):
    @pytest.fixture
    def medium(self, redis_url: str) -> SharedMedium:
        """A stream on the shared server."""
        return SharedMedium(bus_on, redis_url)


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


async def test_a_lost_connection_is_replayed_without_a_gap(private_redis: RedisServer) -> None:
    """Events sent while the reader was away are delivered after it is back, and no gap is told."""
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
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
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
        await is_one_gap(bus, recorder, lambda: private_redis.cli("FLUSHALL"))


async def test_an_emptied_server_is_a_gap_before_the_next_event(
    private_redis: RedisServer,
) -> None:
    """FLUSHALL and an event right behind it: the gap is told first, the event all the same."""
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
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
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
        # The server forgets the events in the very step that makes them.
        forget = "EVAL", TRIM, 1, STREAM, about("trimmed")
        await is_one_gap(bus, recorder, lambda: private_redis.cli(*forget))


async def test_a_restart_with_empty_memory_is_a_gap(private_redis: RedisServer) -> None:
    """A server that was killed and comes back empty: disconnected, gap, connected, events."""
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
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
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
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
    async with joined(bus_on(private_redis.url)) as (bus, recorder):
        await sits_out_a_pause(bus, recorder, private_redis)


async def test_a_bus_may_be_started_before_its_server(private_redis: RedisServer) -> None:
    """`run` waits for a server that is not there yet."""
    private_redis.kill()
    async with trying(bus_on(private_redis.url)) as recorder:
        await asyncio.to_thread(private_redis.start)
        await recorder.until_connected()
        assert recorder.log == ["gap", "connected"]


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


async def test_the_stream_is_bounded(redis_url: str, redis_server: RedisServer) -> None:
    """A stream keeps about ten thousand events and drops the oldest."""
    bus = bus_on(redis_url)
    for _ in range(12):
        await bus.publish([about("x")] * 1000)
    assert 10_000 <= redis_server.cli("XLEN", STREAM) < 10_200
    await bus.aclose()


async def test_a_stream_of_events_is_read_at_intervals(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first event is heard at once; what comes right after it is read together."""
    reads: list[bool] = []
    pauses: list[float] = []
    published = asyncio.Event()
    sleep = asyncio.sleep
    bus = bus_on(redis_url)
    round_ = bus._round

    async def counted(link: Link, listener: Listener) -> bool:
        reads.append(await round_(link, listener))
        return reads[-1]

    async def until_published(seconds: float) -> None:
        pauses.append(seconds)
        await (published.wait() if seconds == PAUSE else sleep(seconds))

    monkeypatch.setattr(bus, "_round", counted)
    async with joined(bus) as (_, recorder):
        monkeypatch.setattr("tiercache.bus.redis.asyncio.sleep", until_published)
        await bus.publish([about("first")])
        await recorder.until(lambda: recorder.names == ["first"])
        for n in range(5):
            await bus.publish([about(str(n))])
        published.set()
        await recorder.until(lambda: len(recorder.names) == 6)
        monkeypatch.undo()
    assert reads.count(True) == 2
    assert PAUSE in pauses
