"""The OpenTelemetry SDK of the run: it counts spans, takes their times, and collects the metrics.

How long a read took, and where its value came from, is what its own span says (`get_or_load`); only
hits of L1, which make no span by design, are timed by whoever reads: `Recorder.timed`.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

_KEPT: Final = 20_000
"""Latencies of each source that are kept: the latest."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Half of ``count`` reads took less than ``p50`` seconds, 99 % less than ``p99``."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Return the percentiles of at least one measurement (nearest rank)."""
        ordered = sorted(seconds)
        rank = [math.ceil(share * len(ordered)) - 1 for share in (0.5, 0.99)]
        return cls(len(ordered), *(ordered[index] for index in rank))


class Mark:
    """Whether a span was begun on behalf of its task or thread: then L1 has not answered."""

    __slots__ = ("missed",)

    def __init__(self) -> None:
        self.missed = False


_mark: ContextVar[Mark | None] = ContextVar("tiercache_demo_mark", default=None)


class Recorder(SpanProcessor):
    """Counts spans by name, and keeps how long reads took by where their value came from."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._traced: dict[int, list[ReadableSpan]] = {}
        self._lock = Lock()
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer_provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(self)
        self.tracer: Tracer = self.tracer_provider.get_tracer("tiercache.demo")

    # -- what the SDK tells -------------------------------------------------------------------

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note for whoever reads that L1 could not answer."""
        mark = _mark.get()
        if mark is not None:
            mark.missed = True

    def on_end(self, span: ReadableSpan) -> None:
        """Count the span, and take its time if it was a read."""
        with self._lock:
            self.spans[span.name] += 1
            context = span.get_span_context()
            if context is not None and context.trace_id in self._traced:
                self._traced[context.trace_id].append(span)
            if span.name.startswith("get_or_load "):
                self._take(_source(span.attributes or {}), _seconds(span))
            elif span.name.startswith("load "):
                self._take("query", _seconds(span))

    def _take(self, source: str | None, seconds: float) -> None:
        if source is not None:
            self._latencies.setdefault(source, deque(maxlen=_KEPT)).append(seconds)

    # -- what readers tell --------------------------------------------------------------------

    def begin(self) -> Mark:
        """Return the mark of this task or thread; call it once, at its start."""
        mark = Mark()
        _mark.set(mark)
        return mark

    def timed(self, mark: Mark, seconds: float) -> None:
        """Take the time of a call, if L1 answered it. Clear ``mark.missed`` before the call."""
        if not mark.missed:
            with self._lock:
                self._take("l1", seconds)

    # -- what people ask ----------------------------------------------------------------------

    def latencies(self) -> dict[str, Latency]:
        """Return the latencies of reads by source: ``l1``, ``l2``, ``l3``, ``joined``, ``loaded``.

        ``query`` is the loader alone.
        """
        with self._lock:
            kept = {source: list(seconds) for source, seconds in self._latencies.items()}
        return {source: Latency.of(seconds) for source, seconds in kept.items()}

    def follow(self, trace_id: int) -> None:
        """Keep the spans of this trace."""
        with self._lock:
            self._traced[trace_id] = []

    def trace(self, trace_id: int) -> list[tuple[int, str, float]]:
        """Return a trace as depth, name and seconds of its spans, in the order they began."""
        with self._lock:
            spans = self._traced.get(trace_id, [])
        depths: dict[int, int] = {}
        rows = []
        for span in sorted(spans, key=lambda span: span.start_time or 0):
            depth = 0 if span.parent is None else depths.get(span.parent.span_id, -1) + 1
            context = span.get_span_context()
            assert context is not None
            depths[context.span_id] = depth
            rows.append((depth, _titled(span), _seconds(span)))
        return rows

    def metrics(self) -> dict[str, float]:
        """Collect the metrics: one figure for each series; of a histogram, its count."""
        return dict(self._series())

    def _series(self) -> Iterator[tuple[str, float]]:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        yield _labelled(metric.name, point), _figure(point)

    def shutdown(self) -> None:
        """Nothing is exported, so nothing is left to do."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back."""
        return True


def _source(attributes: Mapping[str, Any]) -> str | None:
    """Say where the value of a read came from; None for one that had none."""
    if attributes.get("tiercache.coalesced"):
        return "joined"
    if attributes.get("tiercache.result") == "miss":
        return "loaded"
    return attributes.get("tiercache.tier")


def _seconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e9


def _titled(span: ReadableSpan) -> str:
    outcome = (span.attributes or {}).get("poolkit.transaction.outcome")
    scope = (span.attributes or {}).get("tiercache.invalidation.scope")
    detail = outcome or scope
    return f"{span.name} ({detail})" if detail else span.name


def _labelled(name: str, point: Any) -> str:
    """Return ``metric{value,value}``; the names of caches and pools say nothing in one run."""
    attributes = point.attributes or {}
    names = ("tiercache.name", "db.client.connection.pool.name")
    values = ",".join(str(attributes[key]) for key in sorted(attributes) if key not in names)
    return f"{name}{{{values}}}" if values else name


def _figure(point: Any) -> float:
    if isinstance(point, HistogramDataPoint):
        return point.count
    assert isinstance(point, NumberDataPoint)
    return point.value
