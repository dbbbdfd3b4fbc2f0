"""Single flight between caches that share a tier and a bus: two caches stand for two processes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
import pytest_asyncio

from tests.tiercache.remote import FakeRemote
from tests.waiting import until
from tiercache import Cache, MemoryTier, lease
from tiercache.bus.base import Listener
from tiercache.bus.local import LocalBus
from tiercache.events import Event
from tiercache.testing import FakeClock
from tiercache.tiers.base import Ask, Basis, Leased


class Source:
    """A loader that a test holds back: each call waits until it is let go."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def reached(self, calls: int) -> None:
        """Come back when it has been called so often."""
        await until(lambda: self.calls >= calls)

    async def __call__(self) -> int:
        """Answer with the number of the call."""
        self.calls += 1
        call = self.calls
        self.called.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return call


class Tapped(LocalBus):
    """A bus that keeps what is sent, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Event] = []
        self.listeners: list[Listener] = []

    async def publish(self, events: Sequence[bytes]) -> None:
        """Keep and send."""
        self.sent += map(Event.decode, events)
        await super().publish(events)

    async def run(self, listener: Listener) -> None:
        """Keep the listener."""
        self.listeners.append(listener)
        await super().run(listener)


class Pair:
    """Two caches on one tier and one bus."""

    def __init__(
        self, remote: FakeRemote, bus: Tapped, clock: FakeClock, one: Cache, other: Cache
    ) -> None:
        self.remote = remote
        self.clock = clock
        self.bus = bus
        self.one = one
        self.other = other

    @property
    def caches(self) -> tuple[Cache, Cache]:
        """Both."""
        return self.one, self.other

    async def waiting(self, cache: Cache, count: int = 1) -> None:
        """Come back when so many loads of the cache wait for a load elsewhere."""
        await until(lambda: cache.stats().coalesced >= count)

    async def led(self, source: Source, **options: Any) -> asyncio.Task[Any]:
        """Have the one cache load, and come back when its loader has been called."""
        call = self.one.get_or_load("k", source, **{"ttl": 60, **options})
        task = asyncio.create_task(call)
        await bounded(source.called.wait())
        return task

    async def followed(self, loader: Callable[[], Any], **options: Any) -> asyncio.Task[Any]:
        """Ask the other cache for the same, and come back when it waits for the one."""
        call = self.other.get_or_load("k", loader, **{"ttl": 60, **options})
        task = asyncio.create_task(call)
        await self.waiting(self.other)
        return task

    async def both(self, source: Source, **options: Any) -> tuple[asyncio.Task[Any], ...]:
        """Have the one load, and the other wait for it."""
        return await self.led(source, **options), await self.followed(source, **options)


@pytest_asyncio.fixture
async def pair(clock: FakeClock) -> AsyncIterator[Pair]:
    """Two caches that hear each other."""
    remote, bus = FakeRemote("redis"), Tapped()
    one = Cache(MemoryTier(), remote, bus=bus, clock=clock)
    other = Cache(MemoryTier(), remote, bus=bus, clock=clock)
    async with one, other:
        yield Pair(remote, bus, clock, one, other)


async def bounded(work: Awaitable[Any]) -> Any:
    """Await, but not for ever: a wake-up that is missed would only come with the lease's end."""
    async with asyncio.timeout(10):
        return await work


async def test_one_load_for_two(pair: Pair) -> None:
    """Who finds somebody else's lease waits for what that one loads."""
    source = Source()
    first, second = await pair.both(source)
    source.gate.set()
    assert await bounded(asyncio.gather(first, second)) == [1, 1]
    stats = pair.other.stats()
    assert (stats.loads, stats.hits["l2"], stats.coalesced) == (0, 1, 1)
    assert pair.other._figures.coalesced_cluster == 1


async def test_waiting_is_not_asking_again_and_again(pair: Pair) -> None:
    """From its lease to its value, who waits asks the tier once."""
    source = Source()
    first, second = await pair.both(source)
    pair.remote.log.clear()
    source.gate.set()
    await bounded(asyncio.gather(first, second))
    assert pair.remote.log == ["redis fill", "redis read"]


async def test_round_trips(pair: Pair) -> None:
    """A miss leases and fills, a hit reads; nobody hears of a load that nobody waits for."""
    source = Source()
    source.gate.set()
    await pair.one.get_or_load("k", source, ttl=60)
    assert pair.remote.log == ["redis open"] * 2 + ["redis read", "redis lease", "redis fill"]
    pair.remote.log.clear()
    assert await pair.other.get_or_load("k", source, ttl=60) == 1
    assert pair.remote.log == ["redis read"]
    assert pair.bus.sent == []


async def test_events_name_keys_alone(pair: Pair) -> None:
    """What wakes the others says which keys, and nothing of their values."""
    source = Source()
    first, second = await pair.both(source)
    source.gate.set()
    await bounded(asyncio.gather(first, second))
    [event] = pair.bus.sent
    assert (event.landed, event.failed, event.keys) == (("k",), (), ())


async def test_it_is_told_although_it_comes_before_the_answer(pair: Pair) -> None:
    """A load that lands while another asks for its lease wakes that one: no wake-up is lost."""
    source = Source()
    first = await pair.led(source)
    ask = pair.remote.lease

    async def slow(asks: Sequence[Ask], ttl: float, patient: bool = False) -> Any:
        answers = await ask(asks, ttl, patient)
        if any(isinstance(answer, Leased) for answer in answers):
            source.gate.set()
            await first
            await asyncio.sleep(0.05)  # the event is delivered, on another loop
        return answers

    pair.remote.lease = slow  # type: ignore[method-assign]
    assert await bounded(pair.other.get_or_load("k", source, ttl=60)) == 1


async def test_a_failing_load_runs_once_in_each(pair: Pair) -> None:
    """Who waited for a load that failed loads itself; nobody twice."""
    source = Source()
    source.error = ValueError("down")
    tasks = [asyncio.create_task(pair.one.get_or_load("k", source)) for _ in range(3)]
    await source.called.wait()
    tasks += [asyncio.create_task(pair.other.get_or_load("k", source)) for _ in range(3)]
    await pair.waiting(pair.other, 3)
    source.gate.set()
    results = await bounded(asyncio.gather(*tasks, return_exceptions=True))
    assert [str(result) for result in results] == ["down"] * 6
    assert source.calls == 2
    assert pair.bus.sent[0].failed == ("k",)


async def test_what_is_not_stored_is_loaded_by_each(pair: Pair) -> None:
    """A value that the policy does not keep wakes the others, who load for themselves."""
    source = Source()
    first, second = await pair.both(source, cache_if=lambda value: False)
    source.gate.set()
    assert await bounded(asyncio.gather(first, second)) == [1, 2]


async def test_a_cancelled_load_is_taken_up(pair: Pair) -> None:
    """When nobody wants it any more over there, who waits here loads at once."""
    source = Source()
    first, second = await pair.both(source)
    first.cancel()
    await source.reached(2)
    source.gate.set()
    assert await bounded(second) == 2


@pytest.mark.parametrize("way", ["key", "tag", "clear"])
async def test_an_invalidation_wakes_those_who_wait(pair: Pair, way: str) -> None:
    """They begin a load of their own at once, and never get what was loaded before."""
    old, new = Source(), Source()
    new.gate.set()
    first = await pair.led(old, tags=["t"])

    async def load() -> str:
        await new()
        return "new"

    second = await pair.followed(load, tags=["t"])
    if way == "key":
        await pair.one.invalidate("k")
    elif way == "tag":
        await pair.one.invalidate(tags=["t"])
    else:
        await pair.one.clear()
    assert await bounded(second) == "new"
    assert not old.gate.is_set()
    old.gate.set()
    assert await bounded(first) == 1
    assert await pair.other.get("k") == "new"
    assert await pair.one.get("k") == "new"


async def test_nobody_joins_a_load_from_before_an_invalidation(pair: Pair) -> None:
    """Who comes after the invalidation of a tag does not wait for a load that it made void."""
    old = Source()
    first = await pair.led(old, tags=["t"])
    await pair.other.invalidate(tags=["t"])

    async def load() -> str:
        return "new"

    assert await bounded(pair.other.get_or_load("k", load, ttl=60, tags=["t"])) == "new"
    old.gate.set()
    await bounded(first)
    assert await pair.other.get("k") == "new"


async def test_a_set_wakes_those_who_wait(pair: Pair) -> None:
    """A value that somebody brings along ends the waiting."""
    source = Source()
    first, second = await pair.both(source)
    await pair.one.set("k", 7)
    assert await bounded(second) == 7
    source.gate.set()
    await bounded(first)
    assert await pair.other.get("k") == 7


async def test_the_end_of_a_lease(pair: Pair) -> None:
    """Who waits looks again when the lease should have ended, and takes it if it has."""
    source = Source()
    pair.remote.left = 0.02
    [theirs] = await pair.remote.lease([Ask("k", ())], 5.0)
    second = asyncio.create_task(pair.other.get_or_load("k", source, ttl=60))
    source.gate.set()
    await pair.waiting(pair.other)
    assert isinstance(theirs, Basis)
    await pair.remote.release([theirs])
    assert await bounded(second) == 1


async def test_patience_ends(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder that lives and never lands is taken over."""
    monkeypatch.setattr(lease, "WAIT_LIMIT", 0.05)
    source, mine = Source(), Source()
    mine.gate.set()
    first = await pair.led(source)
    assert await bounded(pair.other.get_or_load("k", mine, ttl=60)) == 1
    source.gate.set()
    await bounded(first)
    assert (source.calls, mine.calls) == (1, 1)


async def test_two_caches_that_wait_for_each_other(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loads inside loads that wait for each other across processes come to an end."""
    monkeypatch.setattr(lease, "LEASE_TTL", 0.05)
    monkeypatch.setattr(lease, "WAIT_LIMIT", 3600.0)
    both = asyncio.Barrier(2)

    async def leaf() -> str:
        return "leaf"

    def outer(cache: Cache, inner: str) -> Callable[[], Awaitable[str]]:
        async def load() -> str:
            await both.wait()
            return await cache.get_or_load(inner, leaf, ttl=60)

        return load

    results = await bounded(
        asyncio.gather(
            pair.one.get_or_load("x", outer(pair.one, "y"), ttl=60),
            pair.other.get_or_load("y", outer(pair.other, "x"), ttl=60),
        )
    )
    assert results == ["leaf", "leaf"]


async def test_batches_that_cross(pair: Pair) -> None:
    """{a, b} here and {b, a} there: each loads what it leads, lands it, and gets the rest."""
    loaded: list[list[str]] = []
    both = asyncio.Barrier(2)

    def function(cache: Cache) -> Any:
        @cache.cached_many(ttl=60, key="k:{id}")
        async def load(ids: list[str]) -> dict[str, str]:
            loaded.append(list(ids))
            if len(loaded) <= 2:
                await both.wait()
            return {each: each.upper() for each in ids}

        return load

    one, other = function(pair.one), function(pair.other)
    [theirs] = await pair.remote.lease([Ask("k:b", ())], 5.0)
    pair.remote.left = 0.05
    first = asyncio.create_task(one(["a", "b"]))
    await pair.waiting(pair.one, 0)
    await until(lambda: bool(loaded))
    assert isinstance(theirs, Basis)
    await pair.remote.release([theirs])
    second = asyncio.create_task(other(["b", "a"]))
    expected = {"a": "A", "b": "B"}
    assert await bounded(asyncio.gather(first, second)) == [expected, expected]
    assert sorted(map(sorted, loaded)) == [["a"], ["b"]]


async def test_without_a_bus_nobody_waits() -> None:
    """Nobody could wake them."""
    remote, source = FakeRemote("redis"), Source()
    async with Cache(remote, bus=None) as one, Cache(remote, bus=None) as other:
        first = asyncio.create_task(one.get_or_load("k", source, ttl=60))
        await source.called.wait()
        second = asyncio.create_task(other.get_or_load("k", source, ttl=60))
        await source.reached(2)
        source.gate.set()
        assert sorted(await bounded(asyncio.gather(first, second))) == [1, 2]


@pytest.mark.parametrize("how", ["gone", "gap"])
async def test_trouble_of_the_bus_wakes_all(pair: Pair, how: str) -> None:
    """When the bus goes, or has missed something, who waits looks again; without it, he loads."""
    source = Source()
    first, second = await pair.both(source)
    pair.remote.log.clear()
    other = pair.other._parts.background
    if how == "gone":
        other.connected(False)
        await source.reached(2)
    else:
        other.gap("for the test")
        await until(lambda: pair.remote.log == ["redis read", "redis lease"])
        assert source.calls == 1
    source.gate.set()
    await bounded(asyncio.gather(first, second))


async def test_a_tier_that_is_away_is_not_waited_for(pair: Pair) -> None:
    """Without the tier that has the leases everybody loads at once."""
    source = Source()
    pair.remote.refuses |= {"lease"}
    tasks = [asyncio.create_task(each.get_or_load("k", source)) for each in pair.caches]
    await source.reached(2)
    source.gate.set()
    assert sorted(await bounded(asyncio.gather(*tasks))) == [1, 2]


async def test_a_forced_refresh_waits_for_nobody(pair: Pair) -> None:
    """It takes the lease over, and what it brings is what the others get."""
    source = Source()
    first = await pair.led(source)

    @pair.other.cached(ttl=60, key="k")
    async def load() -> str:
        return "forced"

    assert await bounded(load.refresh()) == "forced"
    source.gate.set()
    assert await bounded(first) == 1
    async with asyncio.timeout(10):
        while await pair.one.get("k") != "forced":  # until the event has been delivered
            await asyncio.sleep(0.001)


STALE: dict[str, Any] = {"ttl": 10, "stale_for": 20}
AHEAD: dict[str, Any] = {"ttl": 10, "refresh_ahead": 0.5}


async def warm(pair: Pair, **options: Any) -> Source:
    """Have the first value of a new loader in both caches; its next call is held back again."""
    source = Source()
    source.gate.set()
    for cache in pair.caches:
        assert await cache.get_or_load("k", source, **options) == 1
    source.gate.clear()
    source.called.clear()
    pair.remote.log.clear()
    return source


async def test_one_load_of_what_has_expired(pair: Pair) -> None:
    """A value that may stand in stays where it is, and yet one alone loads the next."""
    source = await warm(pair, **STALE)
    pair.clock.advance(15)
    first = await pair.led(source, **STALE)
    assert set(pair.remote.values) == {"k"}
    second = await pair.followed(source, **STALE)
    source.gate.set()
    assert await bounded(asyncio.gather(first, second)) == [2, 2]
    assert source.calls == 2
    assert pair.remote.leases == {}


async def test_a_failing_load_of_what_has_expired(pair: Pair) -> None:
    """Each tries once, and each serves the old value."""
    source = await warm(pair, **STALE)
    pair.clock.advance(15)
    source.error = ValueError("down")
    first, second = await pair.both(source, **STALE)
    source.gate.set()
    assert await bounded(asyncio.gather(first, second)) == [1, 1]
    assert source.calls == 3
    assert pair.remote.leases == {}


async def test_one_refresh_ahead(pair: Pair) -> None:
    """A refresh that is under way elsewhere is left to whoever does it."""
    source = await warm(pair, **AHEAD)
    pair.clock.advance(6)
    assert await pair.one.get_or_load("k", source, **AHEAD) == 1
    await source.called.wait()
    assert await pair.other.get_or_load("k", source, **AHEAD) == 1
    await until(lambda: pair.remote.log.count("redis lease") >= 2)
    await until(lambda: not pair.other._parts.leases._waits)
    assert pair.other.stats().coalesced == 0
    source.gate.set()
    async with asyncio.timeout(10):
        while await pair.one.get("k") != 2:
            await asyncio.sleep(0.001)
    pair.clock.advance(4)
    assert await pair.other.get_or_load("k", source, **AHEAD) == 2
    assert source.calls == 2


async def test_who_joined_a_refresh_that_was_left(pair: Pair) -> None:
    """He begins a load of his own, which waits like any other."""
    options = {**AHEAD, **STALE}
    source = await warm(pair, **options)
    pair.clock.advance(6)
    await pair.one.get_or_load("k", source, **options)
    await source.called.wait()
    ask, joined = pair.remote.lease, []

    async def slow(asks: Sequence[Ask], ttl: float, patient: bool = False) -> Any:
        answers = await ask(asks, ttl, patient)
        if not joined:
            pair.clock.advance(6)
            call = pair.other.get_or_load("k", source, **options)
            joined.append(asyncio.create_task(call, context=Context()))
            await pair.waiting(pair.other)
        return answers

    pair.remote.lease = slow  # type: ignore[method-assign]
    assert await pair.other.get_or_load("k", source, **options) == 1
    await pair.waiting(pair.other, 2)
    source.gate.set()
    assert await bounded(joined[0]) == 2
    assert source.calls == 2


async def test_a_value_of_other_tags_is_replaced(pair: Pair) -> None:
    """A value that this caller cannot read, and others can, is not waited for, for ever."""
    source = Source()
    source.gate.set()
    await pair.one.get_or_load("k", source, ttl=60, tags=["t"])
    assert await bounded(pair.other.get_or_load("k", source, ttl=60, tags=["u"])) == 2


async def test_threads_wait_too(pair: Pair) -> None:
    """A sync caller waits in its thread."""
    source = Source()
    first = await pair.led(source)
    second = asyncio.create_task(
        asyncio.to_thread(pair.other.sync.get_or_load, "k", lambda: "mine", ttl=60)
    )
    await pair.waiting(pair.other)
    source.gate.set()
    assert await bounded(asyncio.gather(first, second)) == [1, 1]


async def test_a_sync_call_does_not_wait_for_the_loop_it_blocks(pair: Pair) -> None:
    """The load that has the lease runs on that very loop, and could never land."""
    source = Source()
    first = await pair.led(source)
    assert pair.one.sync.get_or_load("k", lambda: "mine", ttl=60) == "mine"
    source.gate.set()
    assert await bounded(first) in (1, "mine")


async def test_a_void_load_that_asks_for_its_own_key(pair: Pair) -> None:
    """A load does not wait for a lease that it has itself."""
    depth = 0

    async def load() -> str:
        nonlocal depth
        depth += 1
        if depth > 1:
            return "inner"
        # It is void from here on, but its lease is still there.
        pair.one._parts.local.void(["k"], [])
        return await pair.one.get_or_load("k", load, ttl=60)

    assert await bounded(pair.one.get_or_load("k", load, ttl=60)) == "inner"
    assert pair.one.stats().coalesced == 0


def test_a_void_sync_load_that_asks_for_its_own_key() -> None:
    """Nor does a load of a thread."""
    with Cache(FakeRemote("redis"), bus=Tapped()) as cache:

        def load() -> str:
            if cache.stats().loads > 1:
                return "inner"
            cache._parts.local.void(["k"], [])
            return cache.sync.get_or_load("k", load, ttl=60)

        assert cache.sync.get_or_load("k", load, ttl=60) == "inner"
        assert cache.stats().coalesced == 0


async def test_leases_are_kept_alive(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that outlasts a part of its lease renews it; one that has ended does not."""
    monkeypatch.setattr(lease, "LEASE_TTL", 0.05)
    remote, source = FakeRemote("redis"), Source()
    async with Cache(remote, bus=Tapped()) as cache:
        first = asyncio.create_task(cache.get_or_load("k", source, ttl=60))
        await until(lambda: remote.log.count("redis renew") >= 3)
        source.gate.set()
        await first
        assert cache._parts.leases._held == {}
        await cache._parts.leases.renew()
        remote.log.clear()
        await cache._parts.leases.renew()
        assert remote.log == []


def test_leases_of_threads_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is that of a sync loader that blocks its thread."""
    monkeypatch.setattr(lease, "LEASE_TTL", 0.05)
    remote = FakeRemote("redis")
    renewed = threading.Event()
    renew = remote.renew

    async def noted(bases: Sequence[Basis], ttl: float) -> list[bool]:
        renewed.set()
        return await renew(bases, ttl)

    remote.renew = noted  # type: ignore[method-assign]
    with Cache(remote, bus=Tapped()) as cache:
        assert cache.sync.get_or_load("k", lambda: renewed.wait(10), ttl=60)


async def test_a_lost_lease_is_let_go(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that the tier has forgotten is not renewed again."""
    source = Source()
    first = await pair.led(source)
    leases = pair.one._parts.leases
    assert len(leases._held) == 1
    await leases.renew()
    assert len(leases._held) == 1
    pair.remote.leases.clear()
    await leases.renew()
    assert leases._held == {}
    source.gate.set()
    await bounded(first)


async def test_nothing_is_left_behind(pair: Pair) -> None:
    """After loads that ended well, failed or were cancelled nobody waits and nothing is held."""
    source = Source()
    source.error = ValueError("down")
    tasks = [asyncio.create_task(each.get_or_load("k", source)) for each in pair.caches]
    await source.called.wait()
    lost = asyncio.create_task(pair.one.get_or_load("lost", source))
    await asyncio.sleep(0)
    lost.cancel()
    source.gate.set()
    await bounded(asyncio.gather(lost, *tasks, return_exceptions=True))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda each: each.sync.get_or_load("s", lambda: 1), pair.caches))
    for leases in (cache._parts.leases for cache in pair.caches):
        await until(lambda leases=leases: not (leases._held or leases._waits))
