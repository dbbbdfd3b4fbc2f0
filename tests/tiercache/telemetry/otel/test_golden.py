"""What is emitted and what the registry lists are the same, in both directions."""

import re
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics.export import Histogram, Metric, Sum
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tests.tiercache.telemetry.figures import PaperCache, full_cache
from tests.tiercache.telemetry.recorder import Recorder
from tiercache import __version__
from tiercache.telemetry import registry
from tiercache.telemetry.measurements import MEASURES
from tiercache.telemetry.observer import Lookup
from tiercache.telemetry.otel import OtelObserver

ATTRIBUTE = {each.name: each for each in registry.ATTRIBUTES}
SPAN = {each.name: each for each in registry.SPANS}
METRIC = {each.name: each for each in registry.METRICS}

NAME = "golden"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What was recorded on every path, by a cache that is still there."""
    recorder, cache = Recorder(), full_cache(NAME)
    go_everywhere(recorder, cache)
    yield recorder
    del cache


def go_everywhere(recorder: Recorder, cache: PaperCache) -> None:
    """Walk each path of the observer, with and without errors, under a span of the application."""
    observer = OtelObserver(
        NAME,
        tracer_provider=recorder.tracer_provider,
        meter_provider=recorder.meter_provider,
        span_keys=True,
    )
    observer.watch(cache)
    with recorder.application.start_as_current_span("handler"):
        one = Lookup("get_or_load", key="k", function="app.get_user")
        with observer.reading(one):
            with observer.loading(one, "miss"):
                pass
            one.result = "miss"
        many = Lookup("get_many", key_count=3)
        with observer.reading(many):
            many.result, many.tier, many.coalesced = "hit", "l2", True
        with pytest.raises(OSError), observer.reading(one), observer.loading(one, "expired"):
            raise OSError
        with observer.refreshing(one, "refresh_ahead"), observer.invalidating("all", 0):
            pass
        with pytest.raises(OSError), observer.refreshing(one, "stale"):
            raise OSError
        with pytest.raises(OSError), observer.invalidating("key", 2):
            raise OSError
    observer.tier_operation("l2", "read", 0.001, None)
    observer.tier_operation("l3", "fill", 0.001, "OSError")
    observer.bus_event(0.002)


def ours(recorder: Recorder) -> Iterator[tuple[registry.Span, ReadableSpan]]:
    """Yield the library's own spans, each with its entry."""
    for span in recorder.spans():
        if (
            span.instrumentation_scope is not None
            and span.instrumentation_scope.name == "tiercache"
        ):
            yield SPAN[span.name.replace(NAME, "{tiercache.name}")], span


def kind(metric: Metric) -> str:
    """Return the instrument, in the registry's words."""
    if isinstance(metric.data, Histogram):
        return "histogram"
    assert isinstance(metric.data, Sum)
    return "observable counter" if metric.data.is_monotonic else "observable updowncounter"


def check(name: str, value: object) -> None:
    """Hold one attribute to its entry."""
    entry = ATTRIBUTE[name]
    assert {str: "string", int: "int", bool: "boolean"}[type(value)] == entry.type, name
    assert not entry.values or value in entry.values, name


def test_every_span_is_as_registered(recorder: Recorder) -> None:
    """Name, kind, parentage and attributes of each emitted span are those of its entry."""
    for entry, span in ours(recorder):
        present = dict(span.attributes or {})
        assert set(entry.attributes) <= set(present) <= {*entry.attributes, *entry.optional}
        assert span.kind is SpanKind.INTERNAL
        assert (span.parent is None) == entry.root
        assert bool(span.links) == entry.root
        for name, value in present.items():
            check(name, value)


def test_every_registered_span_is_emitted_with_every_attribute(recorder: Recorder) -> None:
    """No entry of the registry, and no attribute of an entry, is without a span that has it."""
    seen: dict[str, set[str]] = {}
    for entry, span in ours(recorder):
        seen.setdefault(entry.name, set()).update(span.attributes or {})
    listed = {each.name: {*each.attributes, *each.optional} for each in registry.SPANS}
    assert seen == listed


def test_the_caller_gets_what_is_registered(recorder: Recorder) -> None:
    """The application's own span is given the totals and nothing else."""
    attributes = dict(recorder.span("handler").attributes or {})
    assert tuple(attributes) == registry.CALLER_ATTRIBUTES
    for name, value in attributes.items():
        check(name, value)


def test_every_metric_is_as_registered(recorder: Recorder) -> None:
    """Instrument, unit, description, attributes and buckets are those of the entry."""
    for metric in recorder.metrics():
        entry = METRIC[metric.name]
        assert (metric.unit, metric.description) == (entry.unit, entry.brief)
        assert kind(metric) == entry.instrument
        for point in metric.data.data_points:
            present = dict(point.attributes or {})
            assert set(entry.attributes) <= set(present) <= {*entry.attributes, *entry.optional}
            for name, value in present.items():
                check(name, value)
            if entry.buckets:
                assert getattr(point, "explicit_bounds", None) == entry.buckets


def test_every_registered_metric_is_emitted_with_every_attribute_and_value(
    recorder: Recorder,
) -> None:
    """No metric, no attribute and no observable value of the registry is without a point."""
    seen: dict[str, set[str]] = {}
    values: dict[str, set[object]] = {}
    for metric in recorder.metrics():
        for point in metric.data.data_points:
            seen.setdefault(metric.name, set()).update(point.attributes or {})
            for name, value in (point.attributes or {}).items():
                values.setdefault(name, set()).add(value)
    assert seen == {each.name: {*each.attributes, *each.optional} for each in registry.METRICS}
    observed = {
        name for each in MEASURES for name in METRIC[each].attributes + METRIC[each].optional
    }
    for name in observed - {"tiercache.name"}:
        assert values[name] == set(ATTRIBUTE[name].values), name


def test_the_scope_says_who_and_by_which_conventions(recorder: Recorder) -> None:
    """Spans carry the library's name and version, and the schema of the conventions."""
    for _, span in ours(recorder):
        scope = span.instrumentation_scope
        assert scope is not None
        assert (scope.version, scope.schema_url) == (__version__, registry.SCHEMA_URL)
    assert re.fullmatch(r"https://opentelemetry\.io/schemas/\d+\.\d+\.\d+", registry.SCHEMA_URL)
