"""OpenTelemetry: the only module of poolkit that imports it.

Counts are published by observable instruments that walk all living pools: one callback for each
instrument and meter, because callbacks cannot be unregistered. The waits and uses of single borrows
are collected as plain numbers and put into their histograms when somebody collects; so borrowing
costs no call, and what is collected is complete.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Token
from typing import TYPE_CHECKING, Any

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from poolkit.telemetry import registry

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from poolkit.telemetry.observer import Figures, Outcome

_SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_NAME = "poolkit"
_KEPT_AT_MOST = 4096


class _Instruments:
    """The instruments of one meter, and the pools that publish through them."""

    def __init__(self, meter: Meter) -> None:
        self.observers: weakref.WeakSet[OtelObserver] = weakref.WeakSet()
        self.create_time = _histogram(meter, registry.CREATE_TIME)
        self.wait_time = _histogram(meter, registry.WAIT_TIME)
        self.use_time = _histogram(meter, registry.USE_TIME)
        self.transaction_duration = _histogram(meter, registry.TRANSACTION)
        for metric, read in _READERS.items():
            make = (
                meter.create_observable_counter
                if metric.kind == "observable_counter"
                else meter.create_observable_up_down_counter
            )
            make(
                metric.name,
                [self._callback(read)],
                unit=metric.unit,
                description=metric.description,
            )

    def _callback(
        self, read: Callable[[OtelObserver], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], list[Observation]]:
        def callback(options: CallbackOptions) -> list[Observation]:
            seen: list[Observation] = []
            for observer in list(self.observers):
                observer.flush()
                seen += read(observer)
            return seen

        return callback


_instruments: weakref.WeakKeyDictionary[Any, _Instruments] = weakref.WeakKeyDictionary()


def _instruments_of(provider: MeterProvider | None) -> _Instruments:
    """Return the instruments of a provider, made once."""
    key: Any = metrics.get_meter_provider() if provider is None else provider
    found = _instruments.get(key)
    if found is None:
        meter = metrics.get_meter(_NAME, "", provider, schema_url=_SCHEMA)
        found = _instruments[key] = _Instruments(meter)
    return found


def _histogram(meter: Meter, metric: registry.Metric) -> Histogram:
    return meter.create_histogram(metric.name, unit=metric.unit, description=metric.description)


class OtelObserver:
    """Watches one pool."""

    def __init__(
        self,
        name: str,
        system: str,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._name = name
        self._acquire, self._transaction = f"acquire {name}", f"transaction {name}"
        self._attributes = {registry.POOL_NAME: name}
        self._system = system
        self._tracer = trace.get_tracer(_NAME, "", tracer_provider, schema_url=_SCHEMA)
        self._instruments = _instruments_of(meter_provider)
        self._figures: weakref.ref[Figures] | None = None
        self.recording = True
        self.waits: deque[float] = deque(maxlen=_KEPT_AT_MOST)
        self.uses: deque[float] = deque(maxlen=_KEPT_AT_MOST)
        self.leaks = 0
        self.retries: dict[str, int] = {}
        self._closings: dict[str, int] = {}

    @property
    def figures(self) -> Figures | None:
        """The pool, while it lives."""
        return None if self._figures is None else self._figures()

    @property
    def attributes(self) -> dict[str, str]:
        """What every metric of the pool carries."""
        return self._attributes

    def watch(self, figures: Figures) -> None:
        """Publish a pool's figures for as long as it lives."""
        self._figures = weakref.ref(figures)
        self._instruments.observers.add(self)

    def flush(self) -> None:
        """Put what was collected into the histograms; called from the exporter's thread."""
        for kept, histogram in (
            (self.waits, self._instruments.wait_time),
            (self.uses, self._instruments.use_time),
        ):
            while kept:
                try:
                    histogram.record(kept.popleft(), self._attributes)
                except IndexError:  # another reader was faster
                    break

    def waited(self, seconds: float, error: BaseException | None) -> None:
        """Make the span of a wait after the fact."""
        end = time.time_ns()
        span = self._tracer.start_span(
            self._acquire, kind=SpanKind.INTERNAL, start_time=end - int(seconds * 1e9)
        )
        if span.is_recording():
            span.set_attributes({**self._attributes, registry.SYSTEM: self._system})
            _fail(span, error)
        span.end(end)

    def connected(self, seconds: float, error: BaseException | None) -> None:
        """Take an attempt to connect."""
        attributes = self._attributes
        if error is not None:
            attributes = {**attributes, registry.ERROR: type(error).__qualname__}
        self._instruments.create_time.record(seconds, attributes)

    def closed(self, reason: str) -> None:
        """Count a connection that was closed."""
        self._closings[reason] = self._closings.get(reason, 0) + 1

    def leaked(self) -> None:
        """Count a connection that was out for too long."""
        self.leaks += 1

    def retried(self, sqlstate: str) -> None:
        """Count a transaction that will be run again."""
        self.retries[sqlstate] = self.retries.get(sqlstate, 0) + 1

    def closings(self) -> list[Observation]:
        """Return what was closed, by reason."""
        return [
            Observation(count, {**self._attributes, registry.REASON: reason})
            for reason, count in list(self._closings.items())
        ]

    def transaction(self, isolation: str | None, readonly: bool, attempt: int) -> _TransactionScope:
        """Begin a span and make it the current one."""
        span = self._tracer.start_span(self._transaction, kind=SpanKind.INTERNAL)
        if span.is_recording():
            span.set_attribute(registry.POOL_NAME, self._name)
            span.set_attribute(registry.SYSTEM, self._system)
            span.set_attribute(registry.READ_ONLY, readonly)
            span.set_attribute(registry.ATTEMPT, attempt)
            if isolation is not None:
                span.set_attribute(registry.ISOLATION, isolation)
        return _TransactionScope(self, span)

    def record_transaction(
        self, seconds: float, outcome: Outcome, error: BaseException | None
    ) -> None:
        """Take the duration of a transaction."""
        attributes = {**self._attributes, registry.OUTCOME: outcome}
        if error is not None:
            attributes[registry.ERROR] = type(error).__qualname__
        self._instruments.transaction_duration.record(seconds, attributes)


class _TransactionScope:
    __slots__ = ("_began", "_observer", "_span", "_token")

    def __init__(self, observer: OtelObserver, span: Span) -> None:
        self._observer = observer
        self._span = span
        self._began = time.perf_counter()
        self._token: Token[Context] | None = None
        if span is not trace.INVALID_SPAN:  # which is what there is where nobody traces
            self._token = context.attach(trace.set_span_in_context(span))

    def end(self, outcome: Outcome, error: BaseException | None) -> None:
        """End the span and record the duration."""
        span = self._span
        if self._token is not None:
            context.detach(self._token)
        if span.is_recording():
            span.set_attribute(registry.OUTCOME, outcome)
            _fail(span, error)
        span.end()
        self._observer.record_transaction(time.perf_counter() - self._began, outcome, error)


def _fail(span: Span, error: BaseException | None) -> None:
    if error is not None:
        span.set_attribute(registry.ERROR, type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR))


def _by_state(observer: OtelObserver) -> Iterable[Observation]:
    if (pool := observer.figures) is not None:
        stats = pool.stats()
        yield Observation(stats.idle, {**observer.attributes, registry.STATE: "idle"})
        yield Observation(stats.used, {**observer.attributes, registry.STATE: "used"})


def _max(observer: OtelObserver) -> Iterable[Observation]:
    if (pool := observer.figures) is not None:
        yield Observation(pool.stats().max_size, observer.attributes)


def _min(observer: OtelObserver) -> Iterable[Observation]:
    if (pool := observer.figures) is not None:
        yield Observation(pool.min_size, observer.attributes)


def _waiting(observer: OtelObserver) -> Iterable[Observation]:
    if (pool := observer.figures) is not None:
        yield Observation(pool.stats().waiting, observer.attributes)


def _timeouts(observer: OtelObserver) -> Iterable[Observation]:
    if (pool := observer.figures) is not None:
        yield Observation(pool.stats().timeouts, observer.attributes)


def _leaks(observer: OtelObserver) -> Iterable[Observation]:
    yield Observation(observer.leaks, observer.attributes)


def _retries(observer: OtelObserver) -> Iterable[Observation]:
    for sqlstate, count in list(observer.retries.items()):
        yield Observation(count, {**observer.attributes, registry.ERROR: sqlstate})


_READERS: dict[registry.Metric, Callable[[OtelObserver], Iterable[Observation]]] = {
    registry.COUNT: _by_state,
    registry.MAX: _max,
    registry.IDLE_MAX: _max,
    registry.IDLE_MIN: _min,
    registry.PENDING: _waiting,
    registry.TIMEOUTS: _timeouts,
    registry.CLOSED: OtelObserver.closings,
    registry.LEAKS: _leaks,
    registry.RETRIES: _retries,
}
