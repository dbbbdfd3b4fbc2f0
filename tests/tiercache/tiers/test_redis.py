"""`RedisTier` on real servers: the contract, and servers that do not behave."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from tests.contracts.tier import LEASE, TTL, TierContract, load, payload_of, read_one
from tests.servers.redis import RedisServer
from tiercache._redis.wire import Call, Wire
from tiercache.errors import PolicyError, TierError
from tiercache.tiers.base import Ask, Basis, Fill
from tiercache.tiers.redis import RedisTier


class OnServer:
    """The storage is a server, emptied before the test."""

    def __init__(self, server: RedisServer, url: str | None = None) -> None:
        self._server = server
        self._url = url or server.url
        server.cli("FLUSHALL")

    def tier(self) -> RedisTier:
        """Return another tier upon the server, patient with a busy machine."""
        return RedisTier(self._url, timeout=5)

    async def forget(self) -> None:
        """Empty the server."""
        self._server.cli("FLUSHALL")


class TestRedisTier(TierContract):
    @pytest.fixture
    def storage(self, redis_server: RedisServer) -> OnServer:
        """The shared server."""
        return OnServer(redis_server)


@pytest.fixture(scope="module")
def socket_server() -> Iterator[RedisServer]:
    """A server that is also reached through a Unix socket, in its folder."""
    with RedisServer(unixsocket="redis.sock") as server:
        yield server


class TestRedisTierThroughASocket(TierContract):
    @pytest.fixture
    def storage(self, socket_server: RedisServer) -> OnServer:
        """The socket, database 3."""
        return OnServer(socket_server, f"unix://{socket_server.folder}/redis.sock?db=3")


def bound(url: str, **options: Any) -> RedisTier:
    """Return a tier of the cache ``app``, patient with a busy machine."""
    tier = RedisTier(url, **{"timeout": 5.0, **options})
    tier.bind("app")
    return tier


@pytest_asyncio.fixture
async def tier(redis_url: str) -> AsyncIterator[RedisTier]:
    """A tier on the shared server."""
    tier = bound(redis_url)
    yield tier
    await tier.aclose()


async def fails(work: Coroutine[Any, Any, Any]) -> TierError:
    """Await what must fail; return how."""
    with pytest.raises(TierError) as caught:
        await work
    assert caught.value.tier == "redis"
    assert not caught.value.skipped
    return caught.value


def connections(server: RedisServer) -> int:
    """Return how many connections of tiers the server has."""
    return str(server.cli("CLIENT", "LIST")).count("name=tiercache ")


# --- round trips


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one for each round trip."""
    trips: list[int] = []
    send = Wire.send

    def counted(self: Wire, calls: Sequence[Call]) -> None:
        trips.append(len(calls))
        send(self, calls)

    monkeypatch.setattr(Wire, "send", counted)
    return trips


async def test_every_operation_is_one_round_trip(tier: RedisTier, trips: list[int]) -> None:
    """Connected and with its scripts known to the server, no operation takes a second trip."""
    asks = [Ask("a", ("t", "u")), Ask("b", ()), Ask("c", ("t",))]
    for _ in range(2):
        trips.clear()
        bases = await tier.lease(asks, LEASE)
        await tier.fill([Fill(basis, b"v", TTL) for basis in bases])
        assert None not in await tier.read(asks)
        await tier.release(bases)
        await tier.invalidate(["a"], ["u"])
        await tier.invalidate(["b"], ["t"], [b"event"])
        await tier.clear([b"event"])
    assert len(trips) == 7


async def test_two_trips_are_for_what_could_not_be_known(tier: RedisTier, trips: list[int]) -> None:
    """Tags that nobody named are asked for, if an entry carries some."""
    await load(tier, "a", b"1", ("t",))
    await load(tier, "b", b"1")
    trips.clear()
    await tier.read([Ask("b", None)])
    assert len(trips) == 1
    await tier.read([Ask("a", None), Ask("b", None)])
    assert len(trips) == 3


async def test_a_thousand_concurrent_reads_share_two_connections(
    private_redis: RedisServer, trips: list[int]
) -> None:
    """Beyond the bound of connections calls wait; none fails, and few pipelines carry them all."""
    tier = bound(private_redis.url, max_connections=2)
    await load(tier, "a", b"v", ("t",))
    trips.clear()
    found = await asyncio.gather(*(payload_of(tier, "a", ("t",)) for _ in range(1000)))
    assert found == [b"v"] * 1000
    assert len(trips) < 100
    await asyncio.gather(
        *(load(tier, f"k{n}", os.urandom(20_000), (f"t{n}",)) for n in range(300)),
        *(payload_of(tier, f"k{n}", None) for n in range(300)),
    )
    assert 1 <= connections(private_redis) <= 2
    await tier.aclose()


async def test_cancelled_callers_leave_the_answers_of_the_others_alone(tier: RedisTier) -> None:
    """Of many readers in one pipeline, half are cancelled at various moments; the rest is right."""
    for n in range(50):
        await load(tier, f"k{n}", b"%d" % n)
    for turns in range(6):
        tasks = [asyncio.create_task(payload_of(tier, f"k{n}")) for n in range(50)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[1::2] == [b"%d" % n for n in range(1, 50, 2)]
    assert await payload_of(tier, "k7") == b"7"


async def test_forgotten_scripts_are_loaded_again(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    """After SCRIPT FLUSH every operation works as before."""
    for _ in range(2):
        assert await load(tier, "a", b"v", ("t",))
        assert await load(tier, "b", b"v", ("t",))
        [basis] = await tier.lease([Ask("c", ())], LEASE)
        await tier.release([basis])
        await tier.invalidate(["a"], [], [b"event"])
        assert await payload_of(tier, "b", ("t",)) == b"v"
        redis_server.cli("SCRIPT", "FLUSH")


# --- time to live


async def test_everything_leaves_in_time(tier: RedisTier, redis_server: RedisServer) -> None:
    """Leases and values have their ttl; a tag lives at least as long as its longest entry.

    Beyond a lease it lives an hour: the lease may be renewed.
    """

    def left(key: str) -> int:
        return int(redis_server.cli("PTTL", key))

    bases = await tier.lease([Ask("a", ("t",)), Ask("b", ("t",)), Ask("c", ("u",))], 10)
    assert 0 < left("tc1:app:k:a") <= 10_000
    assert 3_600_000 < left("tc1:app:g:t") <= 3_610_000
    await tier.fill([Fill(bases[0], b"v", 60), Fill(bases[1], b"v", 7200)])
    assert 50_000 < left("tc1:app:k:a") <= 60_000
    assert left("tc1:app:g:t") > 7_190_000
    assert 7_100_000 < left("tc1:app:k:b") <= 7_200_000
    await tier.lease([Ask("d", ("t",))], 5)
    assert left("tc1:app:g:t") > 7_000_000
    await tier.fill([Fill(bases[2], b"v", None)])
    assert left("tc1:app:k:c") == -1
    assert left("tc1:app:g:u") == -1
    await load(tier, "e", b"v", ("w",), ttl=0.0001)
    assert left("tc1:app:k:e") <= 1
    assert 3_600_000 < left("tc1:app:g:w") <= 3_630_000
    assert left("tc1:app:n") == -1


async def test_an_expired_lease_is_refused(tier: RedisTier, redis_server: RedisServer) -> None:
    """A load that took longer than its lease fills nothing."""
    [basis] = await tier.lease([Ask("a", ())], 0.001)
    while redis_server.cli("EXISTS", "tc1:app:k:a"):
        await asyncio.sleep(0)
    assert await tier.fill([Fill(basis, b"v", TTL)]) == [False]


# --- servers that do not behave


async def test_a_server_that_is_down_is_unavailable(private_redis: RedisServer) -> None:
    """Every operation says where it failed and that nobody is there."""
    tier = bound(private_redis.url)
    [basis] = await tier.lease([Ask("a", ())], LEASE)
    await asyncio.to_thread(private_redis.kill)
    for name, work in {
        "ping": tier.ping(),
        "read": tier.read([Ask("a", ())]),
        "lease": tier.lease([Ask("a", ())], LEASE),
        "fill": tier.fill([Fill(basis, b"v", TTL)]),
        "release": tier.release([basis]),
        "invalidate": tier.invalidate(["a"], ["t"], [b"event"]),
        "clear": tier.clear(),
    }.items():
        error = await fails(work)
        assert error.unavailable
        assert error.operation == name
        assert f"127.0.0.1:{private_redis.port}" in str(error)
    await tier.aclose()


async def test_a_hanging_server_times_out_and_no_answer_goes_astray(
    private_redis: RedisServer,
) -> None:
    """What was asked of a stopped server is given up; later answers belong to later questions."""
    tier = bound(private_redis.url, timeout=0.2)
    await load(tier, "a", b"A")
    await load(tier, "b", b"B")
    await asyncio.to_thread(private_redis.pause)
    errors = await asyncio.gather(*(fails(tier.read([Ask("a", ())])) for _ in range(20)))
    assert all(error.unavailable for error in errors)
    await asyncio.to_thread(private_redis.resume)
    for _ in range(5):
        assert await payload_of(tier, "b") == b"B"
    await tier.aclose()


async def test_a_restart_with_empty_memory_costs_no_error(private_redis: RedisServer) -> None:
    """Idle connections that died are replaced unseen; what was stored or leased is gone."""
    tier = bound(private_redis.url)
    await load(tier, "a", b"v", ("t",))
    [basis] = await tier.lease([Ask("b", ("t",))], LEASE)
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    assert await payload_of(tier, "a", ("t",)) is None
    assert await tier.fill([Fill(basis, b"stale", TTL)]) == [False]
    assert await load(tier, "a", b"new", ("t",))
    assert await payload_of(tier, "a", ("t",)) == b"new"
    await tier.aclose()


async def test_what_comes_back_from_a_snapshot_is_a_miss(private_redis: RedisServer) -> None:
    """Values, leases and tags that an earlier life of the server wrote are not believed."""
    tier = bound(private_redis.url)
    await load(tier, "a", b"old", ("t",))
    await load(tier, "b", b"old")
    [basis] = await tier.lease([Ask("c", ("t",))], LEASE)
    [stored] = await tier.read([Ask("b", ())])
    private_redis.cli("SAVE")
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    assert int(private_redis.cli("EXISTS", "tc1:app:k:a", "tc1:app:k:c")) == 2
    asks = [Ask("a", ("t",)), Ask("a", None), Ask("b", ()), Ask("b", None)]
    assert await tier.read(asks) == [None] * 4
    fills = [Fill(basis, b"stale", TTL), Fill(stored.basis, b"stale", TTL)]
    assert await tier.fill(fills) == [False, False]
    await tier.release([basis])
    assert await load(tier, "b", b"new", ("t",))
    assert await payload_of(tier, "b", ("t",)) == b"new"
    await tier.aclose()


async def test_killed_connections_cost_no_error(private_redis: RedisServer) -> None:
    """Connections that the server closed while they were idle are replaced unseen."""
    tier = bound(private_redis.url)
    await load(tier, "a", b"v")
    await asyncio.gather(*(payload_of(tier, "a") for _ in range(20)))
    private_redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await payload_of(tier, "a") == b"v"
    await tier.aclose()


async def test_a_full_server_is_still_read_and_invalidated(private_redis: RedisServer) -> None:
    """Writing is refused without opening a circuit; reads go on, deletions with events too."""
    tier = bound(private_redis.url)
    await load(tier, "a", b"v", ("t",))
    await load(tier, "b", b"v")
    [basis] = await tier.lease([Ask("c", ())], LEASE)
    private_redis.cli("CONFIG", "SET", "maxmemory", "1")
    assert await payload_of(tier, "a", ("t",)) == b"v"
    for work in (
        tier.lease([Ask("d", ("t",))], LEASE),
        tier.fill([Fill(basis, b"v", TTL)]),
    ):
        error = await fails(work)
        assert not error.unavailable
        assert "maxmemory" in str(error)
    await tier.release([basis])
    await tier.invalidate([], ["t"], [b"event"])
    assert await payload_of(tier, "a", ("t",)) is None
    await tier.invalidate(["b"], [])
    assert await payload_of(tier, "b") is None
    await tier.clear([b"event"])
    await tier.aclose()


async def test_scripts_unknown_to_a_full_server_still_invalidate(
    private_redis: RedisServer,
) -> None:
    """The event's script is let in even if it has to be loaded first."""
    private_redis.cli("CONFIG", "SET", "maxmemory", "1")
    tier = bound(private_redis.url)
    await tier.invalidate(["a"], ["t"], [b"event"])
    assert private_redis.cli("XLEN", "{tc1:app}:e") == 1
    await tier.aclose()


async def test_a_replica_is_unavailable_for_writing(private_redis: RedisServer) -> None:
    """READONLY is what a failover looks like: the circuit should open until it is over."""
    tier = bound(private_redis.url)
    await load(tier, "a", b"v")
    private_redis.cli("REPLICAOF", "127.0.0.1", "1")
    error = await fails(tier.lease([Ask("b", ("t",))], LEASE))
    assert error.unavailable
    private_redis.cli("REPLICAOF", "NO", "ONE")
    assert await load(tier, "b", b"v")
    await tier.aclose()


async def test_a_key_of_another_type_is_refused_by_the_server(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    """A key that somebody else uses reads as nothing; filling it fails and says why."""
    redis_server.cli("RPUSH", "tc1:app:k:a", "x")
    assert await payload_of(tier, "a") is None
    error = await fails(tier.fill([Fill(Basis("a", b"t" * 16, (), await run_of(tier)), b"v", TTL)]))
    assert not error.unavailable
    assert "WRONGTYPE" in str(error)


async def run_of(tier: RedisTier) -> bytes:
    """Return the present run of a tier's bases."""
    [basis] = await tier.lease([Ask("any", ())], LEASE)
    return basis.run


async def test_a_server_that_hides_its_run_id_is_served_with_a_warning(
    private_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where INFO is forbidden a key stands for the run id."""
    private_redis.cli("ACL", "SETUSER", "cache", "on", ">pw", "~*", "+@all", "-info")
    url = private_redis.url.replace("//", "//cache:pw@")
    one, other = bound(url), bound(url)
    assert await load(one, "a", b"v", ("t",))
    assert await payload_of(other, "a", ("t",)) == b"v"
    assert "Redis does not tell its run id" in caplog.text
    await one.aclose()
    await other.aclose()


async def test_wrong_credentials_are_reported_without_being_shown() -> None:
    """A refused password is an unavailable tier, and the password is in no message."""
    with RedisServer(requirepass="right") as server:
        tier = bound(server.url.replace("//", "//:hunter2@"))
        error = await fails(tier.ping())
        assert error.unavailable
        assert "credentials" in str(error)
        assert "hunter2" not in str(error) + repr(tier) + repr(tier.server)
        right = bound(server.url.replace("//", "//:right@"))
        await right.ping()
        given = bound(server.url, password="right")
        await given.ping()
        await tier.aclose()
        await right.aclose()
        await given.aclose()


async def test_a_silent_address_costs_one_timeout() -> None:
    """A port that accepts and never answers is given up after the timeout."""
    waiting: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: waiting.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    tier = bound(f"redis://127.0.0.1:{port}", timeout=0.1)
    error = await fails(tier.read([Ask("a", ())]))
    assert error.unavailable
    assert "in time" in str(error)
    await tier.aclose()
    for writer in waiting:
        writer.close()
    silent.close()
    await silent.wait_closed()


# --- loops, threads, processes


def test_loops_in_two_threads_use_one_tier(redis_url: str) -> None:
    """Each loop has its own connections; closing from one closes those of the other."""
    tier = bound(redis_url)
    barrier = threading.Barrier(2, timeout=20)
    results: list[list[bytes | None]] = []

    async def work(name: str) -> None:
        for n in range(30):
            await load(tier, f"{name}{n}", name.encode(), ("t",))
        await asyncio.to_thread(barrier.wait)
        found = [await payload_of(tier, f"{other}{n}", ("t",)) for other in "xy" for n in range(30)]
        results.append(found)
        await asyncio.to_thread(barrier.wait)
        if name == "x":
            await tier.aclose()
        await asyncio.to_thread(barrier.wait)

    threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[b"x"] * 30 + [b"y"] * 30] * 2


def test_a_loop_that_ends_takes_its_connections_along(private_redis: RedisServer) -> None:
    """`asyncio.run` again and again, never closing: no warning, no connection left over."""
    tier = bound(private_redis.url)

    async def use() -> bytes | None:
        await load(tier, "a", b"v")
        await asyncio.gather(*(payload_of(tier, "a") for _ in range(10)))
        return await payload_of(tier, "a")

    for _ in range(3):
        assert asyncio.run(use()) == b"v"
        gc.collect()
        assert connections(private_redis) == 0


def in_a_child(work: Callable[[], bool]) -> bool:
    """Return what the work returns in a child process, made by a fork here and now."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            signal.alarm(10)
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_after_a_fork_leaves_the_connections_of_its_parent_alone(
    private_redis: RedisServer,
) -> None:
    """Parent and child each go on, the parent on the very loop and connection it had."""
    tier = bound(private_redis.url)

    def use_and_close() -> bool:
        async def use() -> bool:
            found = await payload_of(tier, "a")
            both = connections(private_redis)
            await tier.aclose()
            return found == b"v" and both == 2 and connections(private_redis) == 1

        return asyncio.run(use())

    with asyncio.Runner() as runner:
        assert runner.run(load(tier, "a", b"v"))
        assert in_a_child(use_and_close)
        assert runner.run(payload_of(tier, "a")) == b"v"
        runner.run(tier.aclose())


def test_a_child_does_not_wait_for_the_loops_of_its_parent(redis_url: str) -> None:
    """Closing in a child asks nothing of loops whose threads exist in the parent alone."""
    tier = bound(redis_url)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def ask(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    def close() -> bool:
        asyncio.run(tier.aclose())
        return True

    assert ask(load(tier, "a", b"v"))
    assert in_a_child(close)
    assert ask(payload_of(tier, "a")) == b"v"
    ask(tier.aclose())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def test_a_closed_tier_may_be_used_again(tier: RedisTier) -> None:
    """Closing lets calls under way finish, and the next call connects anew."""
    await load(tier, "a", b"v")
    reading = [asyncio.create_task(payload_of(tier, "a")) for _ in range(10)]
    await asyncio.sleep(0)
    await tier.aclose()
    assert await asyncio.gather(*reading) == [b"v"] * 10
    assert await payload_of(tier, "a") == b"v"


# --- settings


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RedisTier("http://host"), "not the URL of a Redis server"),
        (lambda: RedisTier("redis://host", timeout=0), "timeout"),
        (lambda: RedisTier("redis://host", timeout=float("inf")), "timeout"),
        (lambda: RedisTier("redis://host", timeout="soon"), "'soon'"),
        (lambda: RedisTier("redis://host", max_connections=0), "max_connections"),
        (lambda: RedisTier("redis://host", max_connections=True), "max_connections"),
        (lambda: RedisTier("redis://host?timeout=x"), "timeout"),
        (lambda: RedisTier("redis://host", max_conections=3), "'max_conections'"),
        (lambda: RedisTier("redis://host?socket_timeout=3"), "'socket_timeout'"),
        (lambda: RedisTier("rediss://host?ssl_check_hostname=no"), "true or false, not 'no'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    make: Callable[[], RedisTier], complaint: str
) -> None:
    """The error names the setting and its value."""
    with pytest.raises(PolicyError, match=complaint):
        make()


def test_settings_stand_in_the_url_too() -> None:
    """What the query says is what a keyword says."""
    tier = RedisTier("redis://u:p@host/2?timeout=0.5&max_connections=3")
    assert tier.timeout == tier.server.timeout == 0.5
    assert repr(tier) == "RedisTier('redis://host:6379/2')"
    assert tier.kind == "redis"


async def test_a_tier_without_a_cache_is_refused() -> None:
    """A tier that was not bound has no keys of its own."""
    with pytest.raises(PolicyError, match="bind"):
        await RedisTier("redis://localhost").read([Ask("a", ())])


async def test_pruning_is_left_to_the_server(tier: RedisTier) -> None:
    """Redis drops by itself what is past its time."""
    assert await tier.prune(10) == 0


async def test_a_fill_that_nobody_can_read_says_so(tier: RedisTier) -> None:
    """Where a tag or everything was invalidated meanwhile, the fill is reported as refused."""
    cleared, tagged = await tier.lease([Ask("a", ()), Ask("b", ("t",))], LEASE)
    await tier.invalidate([], ["t"])
    assert await tier.fill([Fill(tagged, b"v", TTL)]) == [False]
    await tier.clear()
    assert await tier.fill([Fill(cleared, b"v", TTL)]) == [False]
    await tier.lease([Ask("c", ("t",))], LEASE)
    [again] = await tier.lease([Ask("a", ())], LEASE)
    assert await tier.fill([Fill(again, b"v", TTL)]) == [True]


async def test_a_stored_value_names_its_basis(tier: RedisTier) -> None:
    """The basis of a read value is the key, its tags and tokens as they were asked."""
    await load(tier, "a", b"v", ("u", "t"))
    stored = await read_one(tier, "a", ("t", "u"))
    assert stored.basis.key == "a"
    assert [tag for tag, _ in stored.basis.tags] == ["t", "u"]


def test_naming_a_tier_does_not_load_the_library() -> None:
    """redis-py is imported with the first connection."""
    code = (
        "import sys; from tiercache.tiers.redis import RedisTier; from tiercache.bus.redis import "
        "RedisBus; RedisBus(RedisTier('redis://localhost').server, 'x'); assert 'redis' not in "
        "[name.partition('.')[0] for name in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
