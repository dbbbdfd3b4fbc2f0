"""The observer that speaks OpenTelemetry, through its API alone.

Where no SDK is present, a read gets a context manager that does nothing, and the context stays as
it is. What happens often is counted elsewhere with plain integers, and read by observable
instruments. Whatever an SDK raises is logged once per cache and goes no further.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Final, Literal, TypeAlias, get_args

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from tiercache.errors import PolicyError
from tiercache.telemetry.observer import Figures, Lookup, Reason, Scope, error_type
from tiercache.telemetry.otel.meters import Meter, meter_of
from tiercache.telemetry.otel.presence import is_installed
from tiercache.telemetry.otel.shield import Shield
from tiercache.telemetry.otel.spans import ReadScope, SpanScope, TimedLoad
from tiercache.telemetry.otel.totals import totals_under
from tiercache.telemetry.registry import SCHEMA_URL

__all__ = ["OtelObserver", "SpanMode"]

SpanMode: TypeAlias = Literal["miss", "all", "off"]
"""Which reads make a span: those that L1 could not answer, all, or none."""

_NOTHING: Final = nullcontext()
_REASONS: Final[Mapping[Reason, Mapping[str, str]]] = {
    reason: {"tiercache.load.reason": reason} for reason in get_args(Reason)
}


class OtelObserver:
    """Records the spans and metrics of one cache.

    ``spans`` says which reads make a span; ``"off"`` leaves out those of loads, refreshes and
    invalidations too. ``span_keys`` puts the key on the span of a read. Without providers the
    global ones are used, also if the application sets them later. ``timer`` returns seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        spans: SpanMode = "miss",
        span_keys: bool = False,
        timer: Callable[[], float] = perf_counter,
    ) -> None:
        if spans not in get_args(SpanMode):
            raise PolicyError(f'spans={spans!r}: expected "miss", "all" or "off"')
        self._name = name
        self._reading = f"get_or_load {name}"
        self._loading = f"load {name}"
        self._refreshing = f"refresh {name}"
        self._invalidating = f"invalidate {name}"
        self._mode: SpanMode = "off"
        self._span_keys = span_keys
        self._timer = timer
        self._shield = Shield()
        self._given = tracer_provider is not None or meter_provider is not None
        self._operations: dict[str, Mapping[str, str]] = {}
        self._measured: dict[tuple[str, str, str | None], Mapping[str, str]] = {}
        self._meter: Meter | None = None
        # The package is loaded by now, but its parts do not import it; importlib.metadata, which
        # knows the version too, takes 25 ms to import.
        version: str = getattr(sys.modules["tiercache"], "__version__", "")
        with self._shield:
            self._tracer = get_tracer("tiercache", version, tracer_provider, schema_url=SCHEMA_URL)
            self._mode = spans
        with self._shield:
            self._meter = meter_of(meter_provider, version)

    @property
    def sees_hits(self) -> bool:
        """Whether hits in L1 are to go through `reading` too."""
        return self._mode == "all"

    @property
    def records(self) -> bool:
        """Whether anybody takes what it is told now: without an SDK nobody does."""
        return self._given or is_installed()

    # -- spans --------------------------------------------------------------------------------

    def reading(self, lookup: Lookup) -> AbstractContextManager[None]:
        """Surround a read with ``get_or_load``."""
        if self._mode == "off" or not self.records:
            return _NOTHING
        attributes = self._operations.get(lookup.operation)
        if attributes is None:
            attributes = self._operations[lookup.operation] = {
                "tiercache.name": self._name,
                "tiercache.operation.name": lookup.operation,
            }
        parent = get_current_span()
        span = self._start(self._reading, attributes, parent)
        if span is None:
            return _NOTHING
        totals = None
        if self._mode == "miss" and parent.is_recording():
            with self._shield:
                totals = totals_under(parent, span)
        return ReadScope(span, self._shield, lookup, totals, with_key=self._span_keys)

    def loading(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround the user's function with ``load``, and take its time."""
        if not self.records:
            return _NOTHING
        scope = None
        if self._mode != "off":
            parent = get_current_span()
            span = self._start(self._loading, _REASONS[reason], parent)
            if span is not None:
                scope = SpanScope(span, self._shield)
                if self._mode == "miss" and parent.is_recording():
                    with self._shield:
                        totals_under(parent, span)
        return TimedLoad(self._timer, partial(self._load_ended, reason), scope)

    def refreshing(self, lookup: Lookup, reason: Reason) -> AbstractContextManager[None]:
        """Surround a background refresh with ``refresh``: a root, linked to the request."""
        if self._mode == "off" or not self.records:
            return _NOTHING
        cause = get_current_span()
        # Only the span leaves the context: baggage belongs to the work, not to the trace.
        root = set_span_in_context(INVALID_SPAN)
        span = self._start(self._refreshing, _REASONS[reason], cause, root)
        return _NOTHING if span is None else SpanScope(span, self._shield)

    def invalidating(self, scope: Scope, key_count: int) -> AbstractContextManager[None]:
        """Surround an explicit invalidation with ``invalidate``."""
        if self._mode == "off" or not self.records:
            return _NOTHING
        attributes = {"tiercache.invalidation.scope": scope, "tiercache.key.count": key_count}
        span = self._start(self._invalidating, attributes, get_current_span())
        return _NOTHING if span is None else SpanScope(span, self._shield)

    def _start(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue],
        parent: Span,
        root: Context | None = None,
    ) -> Span | None:
        """Start a span below the parent; in a ``root`` context, linked to it instead.

        None where that is no span of its own: without an SDK the API hands out the parent's.
        """
        with self._shield:
            links = None
            if root is not None and (cause := parent.get_span_context()).is_valid:
                links = [Link(cause)]
            span = self._tracer.start_span(
                name,
                root,
                attributes=attributes,
                links=links,
                record_exception=False,
                set_status_on_exception=False,
            )
            if span is parent or span.get_span_context() == parent.get_span_context():
                return None
            return span
        return None

    # -- metrics ------------------------------------------------------------------------------

    def watch(self, figures: Figures) -> None:
        """Publish a cache's figures for as long as it lives."""
        if self._meter is not None:
            self._meter.watch(figures)

    def tier_operation(self, level: str, operation: str, seconds: float, error: str | None) -> None:
        """Record ``tiercache.operation.duration``."""
        if not self.records:
            return
        key = (level, operation, error)
        attributes = self._measured.get(key) or self._combine(
            key, {"tiercache.tier": level, "tiercache.operation.name": operation}
        )
        self._record("tiercache.operation.duration", seconds, attributes)

    def _load_ended(self, reason: Reason, seconds: float, error: BaseException | None) -> None:
        key = ("load", reason, None if error is None else error_type(error))
        attributes = self._measured.get(key) or self._combine(key, _REASONS[reason])
        self._record("tiercache.load.duration", seconds, attributes)

    def bus_event(self, lag: float) -> None:
        """Record ``tiercache.bus.lag``."""
        key = ("bus", "event", None)
        self._record("tiercache.bus.lag", lag, self._measured.get(key) or self._combine(key, {}))

    def _combine(
        self, key: tuple[str, str, str | None], particular: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Make the attributes of a measurement, once for each combination there is."""
        error = {} if key[2] is None else {"error.type": key[2]}
        attributes = self._measured[key] = {"tiercache.name": self._name, **particular, **error}
        return attributes

    def _record(self, name: str, value: float, attributes: Mapping[str, str]) -> None:
        if self._meter is not None and self.records:
            with self._shield:
                self._meter.histograms[name].record(value, attributes)
