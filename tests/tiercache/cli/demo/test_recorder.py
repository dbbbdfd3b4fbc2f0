"""The SDK of the demo: what it counts, times and collects."""

import pytest

from tiercache import Cache
from tiercache.cli.demo.recorder import Latency, Recorder


def test_percentiles_are_nearest_ranks() -> None:
    """p50 and p99 are values that were measured."""
    assert Latency.of([float(n) for n in range(1, 101)]) == Latency(100, 50.0, 99.0)
    assert Latency.of([3.0, 1.0, 2.0]) == Latency(3, 2.0, 3.0)
    assert Latency.of([7.0]) == Latency(1, 7.0, 7.0)


async def test_a_read_is_timed_where_it_was_answered() -> None:
    """A miss comes from its span; a hit of L1, which has none, from the clock of its reader."""
    recorder = Recorder()
    cache = Cache(
        name="c", tracer_provider=recorder.tracer_provider, meter_provider=recorder.meter_provider
    )

    @cache.cached(60)
    async def double(number: int) -> int:
        return 2 * number

    mark = recorder.begin()
    async with cache:
        for _ in range(3):
            mark.missed = False
            await double(1)
            recorder.timed(mark, 0.25)
        latencies = recorder.latencies()
        assert latencies["l1"] == Latency(2, 0.25, 0.25)
        assert latencies["loaded"].count == latencies["query"].count == 1
        assert recorder.spans == {"get_or_load c": 1, "load c": 1}
        metrics = recorder.metrics()
    assert metrics["tiercache.requests{hit,l1}"] == 2
    assert metrics["tiercache.requests{miss}"] == 1
    assert metrics["tiercache.load.duration{miss}"] == 1


def test_a_trace_is_a_tree_in_order() -> None:
    """Of a trace that is followed the depths, names and times of its spans are kept."""
    recorder = Recorder()
    with recorder.tracer.start_as_current_span("root") as root:
        trace = root.get_span_context().trace_id
        recorder.follow(trace)
        with recorder.tracer.start_as_current_span("first") as first:
            first.set_attribute("poolkit.transaction.outcome", "commit")
            with recorder.tracer.start_as_current_span("inner"):
                pass
        with recorder.tracer.start_as_current_span("second"):
            pass
    with recorder.tracer.start_as_current_span("other"):
        pass
    rows = recorder.trace(trace)
    assert [row[:2] for row in rows] == [
        (0, "root"),
        (1, "first (commit)"),
        (2, "inner"),
        (1, "second"),
    ]
    assert rows[0][2] == pytest.approx(max(seconds for _, _, seconds in rows))
