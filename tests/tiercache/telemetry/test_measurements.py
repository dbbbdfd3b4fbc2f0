"""What the observable instruments show of a cache's figures."""

import gc

import pytest

from tests.tiercache.telemetry.figures import PaperCache, PaperTier, full_cache
from tests.tiercache.telemetry.recorder import Recorder
from tiercache.stats import Counters, TierCounters
from tiercache.telemetry.measurements import MEASURES
from tiercache.telemetry.otel import OtelObserver


def measured(name: str, cache: PaperCache) -> dict[frozenset[str], int]:
    """Return the values by the set of attribute values, for cases where those are unambiguous."""
    return {frozenset(found.values()): value for value, found in MEASURES[name](cache)}


def test_requests_add_up() -> None:
    """Every request is in exactly one point: by tier where fresh, else stale, miss or bypass."""
    counters = Counters()
    counters.l1, counters.l2, counters.l3 = 1, 2, 4
    counters.stale, counters.misses, counters.bypassed = 8, 16, 32
    cache = full_cache()
    cache.requests = counters
    found = measured("tiercache.requests", cache)
    assert found == {
        frozenset({"hit", "l1"}): 1,
        frozenset({"hit", "l2"}): 2,
        frozenset({"hit", "l3"}): 4,
        frozenset({"stale"}): 8,
        frozenset({"miss"}): 16,
        frozenset({"bypass"}): 32,
    }


def test_a_tier_that_is_not_there_has_no_points() -> None:
    """A cache in memory says nothing of l2 and l3, of circuits, of a wire or of a bus."""
    cache = PaperCache(levels=(PaperTier("l1"),))
    levels = {
        found["tiercache.tier"]
        for measure in MEASURES.values()
        for _, found in measure(cache)
        if "tiercache.tier" in found
    }
    assert levels == {"l1"}
    for name in ("io", "circuit_breaker.state", "bus.connected", "entry.limit", "memory.usage"):
        assert not measured(f"tiercache.{name}", cache)


def test_lookups_and_traffic_of_a_remote_tier() -> None:
    """Each way a lookup can end, and both directions of the wire."""
    asked = TierCounters()
    asked.hits, asked.misses, asked.skipped, asked.errors = 1, 2, 3, 4
    asked.bytes_read, asked.bytes_written = 5, 6
    cache = PaperCache(levels=(PaperTier("l2", asked),))
    assert measured("tiercache.tier.lookups", cache) == {
        frozenset({"l2", "hit"}): 1,
        frozenset({"l2", "miss"}): 2,
        frozenset({"l2", "skipped"}): 3,
        frozenset({"l2", "error"}): 4,
    }
    assert measured("tiercache.io", cache) == {
        frozenset({"l2", "read"}): 5,
        frozenset({"l2", "write"}): 6,
    }


@pytest.mark.parametrize("state", ["closed", "open", "half_open"])
def test_a_circuit_is_in_exactly_one_state(state: str) -> None:
    """The state it is in has the value 1, the two others 0."""
    cache = PaperCache(levels=(PaperTier("l2", circuit=state),))
    found = measured("tiercache.circuit_breaker.state", cache)
    assert found.pop(frozenset({"l2", state})) == 1
    assert list(found.values()) == [0, 0]


def test_limits_and_usage() -> None:
    """Entries and bytes are shown where they are known, limits where there are any."""
    cache = full_cache()
    assert measured("tiercache.entry.count", cache) == {
        frozenset({"l1"}): 3,
        frozenset({"l2"}): 5,
        frozenset({"l3"}): 7,
    }
    assert measured("tiercache.entry.limit", cache) == {frozenset({"l1"}): 100}
    assert measured("tiercache.memory.usage", cache) == {frozenset({"l1"}): 300}
    assert measured("tiercache.memory.limit", cache) == {frozenset({"l1"}): 1000}


def test_coalescing_tells_the_process_from_the_cluster() -> None:
    """Waiting for a load of this process and for one of another are two figures."""
    cache = PaperCache(coalesced_cluster=2)
    cache.requests.coalesced = 5
    assert measured("tiercache.coalesced_requests", cache) == {
        frozenset({"process"}): 5,
        frozenset({"cluster"}): 2,
    }


def test_evictions_and_invalidations_are_told_by_cause() -> None:
    """The cache's own tally appears as it is."""
    cache = PaperCache()
    cache.tally.evictions["expired"] = 3
    cache.tally.invalidations["bus"] = 4
    assert measured("tiercache.evictions", cache)[frozenset({"expired"})] == 3
    assert measured("tiercache.invalidations", cache)[frozenset({"bus"})] == 4


def test_a_disconnected_bus_is_a_zero() -> None:
    """A bus that is down shows 0; only where there is none is there no point."""
    assert measured("tiercache.bus.connected", PaperCache(bus_connected=False)) == {frozenset(): 0}


def test_the_sdk_collects_current_values() -> None:
    """A figure that grows between two collections is seen grown."""
    recorder = Recorder()
    cache = full_cache()
    OtelObserver("app", meter_provider=recorder.meter_provider).watch(cache)
    point = frozenset({"tiercache.name": "app", "tiercache.result": "miss"}.items())
    assert recorder.points("tiercache.requests")[point] == 0
    cache.requests.misses += 3
    assert recorder.points("tiercache.requests")[point] == 3


def test_caches_of_one_name_are_summed() -> None:
    """Two caches that share a name share their points, and others have their own."""
    recorder = Recorder()
    caches = [full_cache("app"), full_cache("app"), full_cache("other")]
    for number, cache in enumerate(caches):
        cache.requests.misses = 10**number
        OtelObserver(cache.name, meter_provider=recorder.meter_provider).watch(cache)
    found = recorder.points("tiercache.requests")
    for name, expected in (("app", 11), ("other", 100)):
        point = frozenset({"tiercache.name": name, "tiercache.result": "miss"}.items())
        assert found[point] == expected


def test_a_cache_that_is_gone_is_no_longer_shown() -> None:
    """Publishing keeps no cache alive."""
    recorder = Recorder()
    cache = full_cache()
    OtelObserver("app", meter_provider=recorder.meter_provider).watch(cache)
    assert recorder.points("tiercache.requests")
    del cache
    gc.collect()
    assert not recorder.points("tiercache.requests")


def test_a_cache_that_cannot_be_asked_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The figures of one that raises are left out, once logged; the others are collected."""

    class Broken(PaperCache):
        def counters(self) -> Counters:
            raise RuntimeError("boom")

    recorder = Recorder()
    broken, cache = Broken("broken"), full_cache()
    for each in (broken, cache):
        OtelObserver(each.name, meter_provider=recorder.meter_provider).watch(each)
    found = recorder.points("tiercache.requests")
    assert {dict(point)["tiercache.name"] for point in found} == {"app"}
    recorder.points("tiercache.requests")
    assert [record.name for record in caplog.records] == ["tiercache"]


def test_one_provider_gets_one_set_of_instruments(caplog: pytest.LogCaptureFixture) -> None:
    """However many caches there are, the SDK sees each instrument registered once."""
    recorder = Recorder()
    caches = [full_cache(f"cache{number}") for number in range(3)]
    for cache in caches:
        OtelObserver(cache.name, meter_provider=recorder.meter_provider).watch(cache)
    names = [metric.name for metric in recorder.metrics()]
    assert len(names) == len(set(names))
    assert not caplog.records
