"""What the form of a call, tags with a bus, and telemetry add to a hit in memory.

Everything beside the plain hit (a function of two positional arguments), in the same rounds; the
processor's time of the thread. "two tags, bus" is a cache whose bus, a Redis of our own, is
connected; "exporting" one whose spans and metrics the OpenTelemetry SDK exports, the metrics every
second instead of every minute, while the hits are measured inside a span that records.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from _bars import Bar, at_most
from _l1 import (
    DEFAULT,
    IDS,
    KEYWORDS,
    METHOD,
    METHOD_KEYED,
    ONE,
    PLAIN,
    TAGS,
    TEMPLATE,
    TEXT,
    TTL,
    Form,
    check,
    items,
    names,
)
from _measure import PROCESSOR, Sample, Timed, interleave, loop_of
from _options import options
from _report import save, show, show_bars
from _servers import redis
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tiercache import Cache, MemoryTier

BASE = "plain hit"
TAGGED, EXPORTING = "two tags, bus", "exporting"
FORM, SDK = "by form", "with the SDK"
PAIRS = 3
"""How many caches there are with and without SDK: two alike differ by some per cent, by where in
memory their entries happen to lie."""
FORMS = (ONE, TEXT, DEFAULT, KEYWORDS, METHOD, METHOD_KEYED, TEMPLATE, TAGS)
LIMITS = {METHOD.name: 2.5, METHOD_KEYED.name: 2.5, KEYWORDS.name: 2.0, TEMPLATE.name: 2.0}
EXPORT_MS = 1_000
PATIENCE = 10.0


class Nowhere(MetricExporter):
    """Takes metrics, and says how often."""

    def __init__(self) -> None:
        super().__init__()
        self.exports = 0

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object
    ) -> MetricExportResult:
        self.exports += 1
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: object) -> None:
        pass


class Away(SpanExporter):
    """Takes spans."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def measure(calls: int, rounds: int) -> dict[str, list[Sample]]:
    """Run all in one."""
    with ExitStack() as stack:
        url = stack.enter_context(redis())
        bus = stack.enter_context(Cache(MemoryTier(max_entries=IDS * 2), name="bus", bus=url))
        tracers, exporter = TracerProvider(), Nowhere()
        # One that keeps spans for later would scatter the entries made meanwhile over the memory.
        tracers.add_span_processor(SimpleSpanProcessor(Away()))
        reader = PeriodicExportingMetricReader(exporter, export_interval_millis=EXPORT_MS)
        meters = MeterProvider([reader])
        stack.callback(meters.shutdown)
        stack.callback(tracers.shutdown)
        # One each: the functions are all called alike, and would share their entries.
        caches = [
            stack.enter_context(Cache(MemoryTier(max_entries=IDS * 2), name=form.name))
            for form in (PLAIN, *FORMS)
        ]
        contenders = {
            BASE if form is PLAIN else form.name: _hits(cache, form, calls)
            for cache, form in zip(caches, (PLAIN, *FORMS), strict=True)
        }
        caches.append(bus)
        contenders[TAGGED] = _hits(bus, TAGS, calls)
        for pair in range(PAIRS):
            for name, providers in (
                (BASE, {}),
                (EXPORTING, {"tracer_provider": tracers, "meter_provider": meters}),
            ):
                tier = MemoryTier(max_entries=IDS * 2)
                cache = stack.enter_context(Cache(tier, name=f"{name}{pair}", **providers))
                contenders[cache.name] = _hits(cache, PLAIN, calls)
                caches.append(cache)
        _until_trusted(bus)
        stack.enter_context(tracers.get_tracer("benchmark").start_as_current_span("request"))
        loads = [cache.stats().loads for cache in caches]
        results = interleave(contenders, calls, rounds)
        for cache, before in zip(caches, loads, strict=True):
            check(cache.name, before, cache.stats().loads)
        if not exporter.exports:
            raise SystemExit("the SDK has exported nothing")
    forms = results[: -2 * PAIRS]
    return {FORM: forms, SDK: [_joined(name, results) for name in (BASE, EXPORTING)]}


def _joined(name: str, results: list[Sample]) -> Sample:
    numbered = {f"{name}{pair}" for pair in range(PAIRS)}
    parts = [sample.rounds for sample in results if sample.name in numbered]
    return Sample(name, [each for part in parts for each in part])


def _hits(cache: Cache, form: Form, calls: int) -> Timed:
    scope = names(form, cache.cached(ttl=TTL, **form.options), is_async=False)
    timed = loop_of(form.call, form.variable, items(form, calls), clock=PROCESSOR, **scope)
    timed()
    return timed


def _until_trusted(cache: Cache) -> None:
    """Wait until the bus vouches for L1, which is what makes hits quick again."""
    gate = cache._parts.local.gate
    end = time.monotonic() + PATIENCE
    while gate.until <= time.monotonic():
        if time.monotonic() > end:
            raise SystemExit("the bus has not connected")
        time.sleep(0.01)


def bars(results: dict[str, list[Sample]]) -> list[Bar]:
    """Hold the results against what is asked."""
    found = {sample.name: sample for sample in results[FORM]}
    plain, exporting = results[SDK]
    judged = [
        at_most(f"hit, {name}", limit, found[name].ratio_to(found[BASE]), "of the plain hit")
        for name, limit in LIMITS.items()
    ]
    return [
        *judged,
        at_most(
            "hit, two tags, bus connected",
            1.3,
            found[TAGGED].ratio_to(found[BASE]),
            "of the plain hit",
        ),
        at_most("hit, SDK exporting", 1.05, exporting.ratio_to(plain), "of the plain hit"),
    ]


def main() -> None:
    """Measure, print, and save if asked to."""
    arguments = options(__doc__, calls=10_000, rounds=60)
    results = measure(arguments.calls, arguments.rounds)
    judged = bars(results)
    title = "A hit in L1: median per call, and as a multiple of the plain hit"
    for name, samples in results.items():
        show(title, {name: samples}, BASE)
    show_bars(judged)
    if arguments.json is not None:
        settings = {"calls": arguments.calls, "rounds": arguments.rounds, "entries": IDS}
        save(arguments.json, "l1_forms", results, BASE, settings, judged)


if __name__ == "__main__":
    main()
