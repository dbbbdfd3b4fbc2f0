"""`GuardedTier`: limits, circuit, counting; over a tier whose behaviour the test decides."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.contracts.tier import load
from tests.servers.redis import RedisServer
from tiercache._clock import SystemClock
from tiercache.errors import TierError
from tiercache.telemetry.observer import NullObserver
from tiercache.tiers.base import Ask, Basis, Fill, Stored
from tiercache.tiers.circuit import Circuit
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.redis import RedisTier

BASIS = Basis("a", b"t", (), b"r")


def broken(unavailable: bool = True) -> TierError:
    """Return a failure as a tier raises it."""
    return TierError("broken", tier="redis", operation="x", unavailable=unavailable)


class Double:
    """A tier that answers, raises or hangs, as it is told."""

    kind = "redis"
    timeout = 0.05

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: BaseException | None = None
        self.hangs = False

    def __repr__(self) -> str:
        return "Double()"

    async def _do(self, name: str, answer: Any = None) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return answer

    async def open(self) -> None:
        await self._do("open")

    async def ping(self) -> None:
        await self._do("ping")

    async def prune(self, limit: int) -> int:
        return await self._do("prune", limit)

    async def aclose(self) -> None:
        self.calls.append("aclose")

    async def read(self, asks: Any) -> Any:
        found = [Stored(b"12345", BASIS) if ask.key == "a" else None for ask in asks]
        return await self._do("read", found)

    async def lease(self, asks: Any, ttl: float, patient: bool = False) -> Any:
        return await self._do("lease", [BASIS for _ in asks])

    async def renew(self, bases: Any, ttl: float) -> Any:
        return await self._do("renew", [True for _ in bases])

    async def release(self, bases: Any) -> Any:
        return await self._do("release", [False for _ in bases])

    async def fill(self, fills: Any) -> Any:
        return await self._do("fill", [True for _ in fills])

    async def invalidate(self, keys: Any, tags: Any, events: Any = ()) -> None:
        await self._do("invalidate")

    async def clear(self, events: Any = ()) -> None:
        await self._do("clear")


class Blocking:
    """The same in the caller's thread."""

    def __init__(self, double: Double) -> None:
        self._double = double

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._double.calls.append(name)
            if self._double.error is not None:
                raise self._double.error
            return [None] if name == "read" else [True] if name == "fill" else None

        return call


class BlockingDouble(Double):
    """A tier that can be used without a loop."""

    blocking: Any = None


class Observed(NullObserver):
    """Notes the operations that are reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    def tier_operation(self, level: str, operation: str, seconds: float, error: str | None) -> None:
        assert 0 <= seconds < 60
        self.seen.append((level, operation, error))


class House:
    """A guarded double with the task of its probe, which starts when the test says so."""

    def __init__(self, double: Double | None = None) -> None:
        self.double = double or Double()
        self.observer = Observed()
        self.spawned: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.restored = 0
        circuit = Circuit(
            self.double,  # type: ignore[arg-type]
            level="l2",
            clock=SystemClock(),
            observer=self.observer,
            spawn=self.spawned.append,
            on_restored=self._restored,
        )
        self.guarded = GuardedTier(self.double, circuit)  # type: ignore[arg-type]

    def _restored(self) -> None:
        self.restored += 1

    async def fails(self) -> TierError:
        """Read, which must fail; return how."""
        with pytest.raises(TierError) as caught:
            await self.guarded.read([Ask("a", ())])
        return caught.value


async def test_answers_pass_and_are_counted() -> None:
    """Hits, misses, bytes both ways and a report for each operation; the tier is opened once."""
    house = House()
    guarded, counters = house.guarded, house.guarded.counters
    found = await guarded.read([Ask("a", ()), Ask("b", ()), Ask("a", None)])
    assert [stored is not None for stored in found] == [True, False, True]
    assert (counters.hits, counters.misses, counters.bytes_read) == (2, 1, 10)
    assert await guarded.lease([Ask("a", ())], 1) == [BASIS]
    assert await guarded.fill([Fill(BASIS, b"1234567", None)]) == [True]
    await guarded.release([BASIS])
    await guarded.invalidate(["a"], [])
    await guarded.clear()
    await guarded.ping()
    assert await guarded.prune(7) == 7
    assert counters.bytes_written == 7
    assert (counters.errors, counters.skipped) == (0, 0)
    operations = ["read", "lease", "fill", "release", "invalidate", "clear", "ping", "prune"]
    assert house.double.calls == ["open", *operations]
    assert house.observer.seen == [("l2", operation, None) for operation in operations]
    assert (guarded.kind, guarded.level, guarded.circuit) == ("redis", "l2", "closed")
    assert repr(guarded) == "<l2 Double(), circuit closed>"


async def test_one_timeout_opens_the_circuit_and_nothing_more_is_sent() -> None:
    """The first caller waits out the limit, the next ones are refused without a call."""
    house = House()
    house.double.hangs = True
    first = await house.fails()
    assert first.unavailable
    assert not first.skipped
    assert "did not answer within 0.05 s" in str(first)
    assert house.guarded.circuit == "open"
    sent = len(house.double.calls)
    for _ in range(3):
        assert (await house.fails()).skipped
    assert len(house.double.calls) == sent
    assert (house.guarded.counters.errors, house.guarded.counters.skipped) == (1, 3)
    assert house.observer.seen == [("l2", "read", "TimeoutError")]
    assert len(house.spawned) == 1


async def test_a_refusal_leaves_the_circuit_closed() -> None:
    """A server that says no is there: the error passes as it is and the next call is sent."""
    house = House()
    await house.guarded.open()
    house.double.error = broken(unavailable=False)
    assert await house.fails() is house.double.error
    assert house.guarded.circuit == "closed"
    house.double.error = None
    assert await house.guarded.read([Ask("a", ())])
    assert house.spawned == []


@pytest.mark.parametrize(
    ("error", "opens"),
    [(ConnectionResetError("gone"), True), (OSError("no route"), True), (KeyError("bug"), False)],
)
async def test_foreign_errors_are_mapped(
    error: Exception, opens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a tier raises becomes a TierError with its cause, and is logged once."""
    house = House()
    await house.guarded.open()
    house.double.error = error
    with caplog.at_level(logging.ERROR, "tiercache.tiers"):
        caught = await house.fails()
        if not opens:
            await house.fails()
    assert caught.__cause__ is error
    assert caught.unavailable is opens
    assert (house.guarded.circuit == "open") is opens
    assert len(caplog.records) == 1
    assert house.observer.seen[1] == ("l2", "read", type(error).__name__)


async def test_a_cancelled_caller_is_no_failure() -> None:
    """Cancellation passes and says nothing about the tier."""
    house = House()
    house.double.hangs = True
    house.double.timeout = 30
    task = asyncio.create_task(house.guarded.read([Ask("a", ())]))
    while not house.double.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.guarded.circuit == "closed"
    assert house.guarded.counters.errors == 0


async def test_the_probe_brings_it_back() -> None:
    """The probe asks with a growing delay until it is answered; then requests go through again."""
    house = House()
    await house.guarded.open()
    house.double.error = broken()
    await house.fails()
    assert house.restored == 0
    probe = asyncio.create_task(house.spawned.pop()())
    while house.double.calls.count("ping") < 2:
        await asyncio.sleep(0.01)
    assert (await house.fails()).skipped
    house.double.error = None
    await asyncio.wait_for(probe, 5)
    assert house.guarded.circuit == "closed"
    assert house.restored == 1
    assert await house.guarded.read([Ask("a", ())])
    house.double.error = broken()
    await house.fails()
    assert len(house.spawned) == 1


async def test_the_probe_opens_a_tier_that_could_not_be_opened() -> None:
    """A first use that fails to open opens the circuit; the probe opens the tier, then pings."""
    house = House()
    house.double.error = broken()
    await house.fails()
    assert house.double.calls == ["open"]
    house.double.error = None
    await asyncio.wait_for(house.spawned.pop()(), 5)
    assert house.double.calls == ["open", "open", "ping"]
    await house.guarded.read([Ask("a", ())])
    assert house.double.calls[3:] == ["read"]


async def test_many_first_callers_open_once() -> None:
    """Those who come at the same moment wait for one opening; if it fails, all are told at once."""
    house = House()
    await asyncio.gather(*(house.guarded.read([Ask("a", ())]) for _ in range(20)))
    assert house.double.calls.count("open") == 1
    other = House()
    other.double.error = broken()
    results = await asyncio.gather(
        *(other.guarded.read([Ask("a", ())]) for _ in range(20)), return_exceptions=True
    )
    assert all(isinstance(result, TierError) for result in results)
    assert other.double.calls.count("open") == 1


async def test_a_probe_that_ended_is_replaced_by_the_next_caller() -> None:
    """When the probe's loop went away with it, whoever is refused next starts another."""
    house = House()
    house.double.error = broken()
    await house.fails()
    probe = asyncio.create_task(house.spawned.pop()())
    await asyncio.sleep(0)
    assert (await house.fails()).skipped
    assert house.spawned == []
    probe.cancel()
    await asyncio.wait([probe])
    assert (await house.fails()).skipped
    house.double.error = None
    await asyncio.wait_for(house.spawned.pop()(), 5)
    assert house.guarded.circuit == "closed"


async def test_a_probe_that_cannot_be_started_does_not_replace_the_error() -> None:
    """The caller is told of the tier, not of the loop that refused the probe."""
    house = House()

    def refuse(work: object) -> None:
        raise RuntimeError("no loop")

    house.guarded.guard._spawn = refuse
    house.double.error = broken()
    assert await house.fails() is house.double.error
    assert (await house.fails()).skipped


async def test_closing_ends_the_probe_and_a_later_use_begins_anew() -> None:
    """After `aclose` the circuit is closed, the old probe ends, and the tier is opened again."""
    house = House()
    house.double.error = broken()
    await house.fails()
    probe = asyncio.create_task(house.spawned.pop()())
    await asyncio.sleep(0)
    await house.guarded.aclose()
    assert house.guarded.circuit == "closed"
    await asyncio.wait_for(probe, 5)
    assert house.restored == 0
    assert "ping" not in house.double.calls
    house.double.error = None
    await house.guarded.read([Ask("a", ())])
    assert house.double.calls[-2:] == ["open", "read"]


def test_a_tier_without_blocking_operations_says_so() -> None:
    """`blocking` is None where the tier has none, or none at the moment."""
    assert House().guarded.blocking is None
    assert House(BlockingDouble()).guarded.blocking is None


def test_blocking_operations_share_the_circuit() -> None:
    """Without a loop: the same counters, mapping and refusals, from any thread."""
    double = BlockingDouble()
    double.blocking = Blocking(double)
    house = House(double)
    view = house.guarded.blocking
    assert view is not None
    assert view.read([Ask("a", ())]) == [None]
    assert view.fill([Fill(BASIS, b"123", None)]) == [True]
    view.lease([], 1)
    view.release([])
    view.invalidate([], [])
    view.clear()
    assert double.calls == ["read", "fill", "lease", "release", "invalidate", "clear"]
    assert (house.guarded.counters.misses, house.guarded.counters.bytes_written) == (1, 3)
    double.error = OSError("disk")
    with pytest.raises(TierError):
        view.clear()
    caught: list[TierError] = []

    def refused() -> None:
        try:
            view.clear()
        except TierError as error:
            caught.append(error)

    thread = threading.Thread(target=refused)
    thread.start()
    thread.join(10)
    assert caught[0].skipped
    assert house.observer.seen[-1] == ("l2", "clear", "OSError")


async def test_a_redis_that_hangs_costs_one_timeout_and_comes_back(
    private_redis: RedisServer,
) -> None:
    """SIGSTOP: one caller waits, the others are refused; after SIGCONT all is as before."""
    redis = RedisTier(private_redis.url)
    redis.bind("app")
    probes: set[asyncio.Task[None]] = set()
    restored = asyncio.Event()
    circuit = Circuit(
        redis,
        level="l2",
        clock=SystemClock(),
        observer=NullObserver(),
        spawn=lambda work: probes.add(asyncio.ensure_future(work())),
        on_restored=restored.set,
    )
    guarded = GuardedTier(redis, circuit)
    await load(guarded, "a", b"v", ("t",))
    await asyncio.to_thread(private_redis.pause)
    with pytest.raises(TierError) as caught:
        await guarded.read([Ask("a", ("t",))])
    assert not caught.value.skipped
    refused = await asyncio.gather(
        *(guarded.read([Ask("a", None)]) for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(error, TierError) and error.skipped for error in refused)
    await asyncio.to_thread(private_redis.resume)
    async with asyncio.timeout(10):
        await restored.wait()
    [stored] = await guarded.read([Ask("a", ("t",))])
    assert stored is not None
    await asyncio.gather(*probes)
    await guarded.aclose()


async def test_one_turn_asks_the_tier_twice() -> None:
    """The first of a turn goes at once, and those behind it together, whatever they ask."""
    house = House()
    await house.guarded.open()
    house.double.calls.clear()
    guarded = house.guarded
    names = "abc"
    found = await asyncio.gather(*(guarded.read([Ask(name, ())]) for name in names))
    assert found == [[Stored(b"12345", BASIS)], [None], [None]]
    assert (guarded.counters.hits, guarded.counters.misses) == (1, 2)
    leased = await asyncio.gather(*(guarded.lease([Ask(name, ())], 5.0) for name in names))
    assert leased == [[BASIS]] * 3
    assert await asyncio.gather(*(guarded.release([BASIS]) for _ in names)) == [[False]] * 3
    filled = await asyncio.gather(*(guarded.fill([Fill(BASIS, b"12", None)]) for _ in names))
    assert filled == [[True]] * 3
    assert guarded.counters.bytes_written == 6
    await asyncio.gather(*(guarded.invalidate([name], [], [b"e"]) for name in names))
    operations = ["read", "lease", "release", "fill", "invalidate"]
    assert house.double.calls == [each for each in operations for _ in range(2)]
    assert [seen[1] for seen in house.observer.seen[-10:]] == house.double.calls


async def test_leases_of_different_kinds_go_apart() -> None:
    """Another ttl, patience, or the same key once more: an operation of its own."""
    house = House()
    await house.guarded.open()
    house.double.calls.clear()
    a, b = Ask("a", ()), Ask("b", ())
    lease = house.guarded.lease
    await asyncio.gather(
        lease([a], 5.0), lease([b], 5.0), lease([b], 5.0), lease([a], 5.0), lease([a], 5.0, True)
    )
    assert house.double.calls == ["lease"] * 4


async def test_a_read_of_unknown_tags_goes_alone() -> None:
    """It may take a second round trip, for which nobody else shall wait."""
    house = House()
    await house.guarded.open()
    house.double.calls.clear()
    read = house.guarded.read
    await asyncio.gather(*(read([Ask(name, None if name == "b" else ())]) for name in "abcd"))
    assert house.double.calls == ["read"] * 3
