"""The instruments, once per meter provider, and the caches whose figures they show.

The callbacks of observable instruments cannot be unregistered, so a `Meter` lives as long as its
provider and knows its caches by weak reference. Caches of one name are summed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    MeterProvider,
    Observation,
    get_meter,
    get_meter_provider,
)

from tiercache.telemetry.measurements import MEASURES, Measurement
from tiercache.telemetry.observer import Figures
from tiercache.telemetry.otel.shield import Shield
from tiercache.telemetry.registry import METRICS, SCHEMA_URL


class Meter:
    """All instruments of one meter provider."""

    def __init__(self, provider: MeterProvider, version: str) -> None:
        self._lock = threading.Lock()
        self._watched: WeakSet[Figures] = WeakSet()
        self._shield = Shield()
        self.histograms: dict[str, Histogram] = {}
        meter = get_meter("tiercache", version, provider, schema_url=SCHEMA_URL)
        for metric in METRICS:
            if metric.instrument == "histogram":
                self.histograms[metric.name] = meter.create_histogram(
                    metric.name,
                    metric.unit,
                    metric.brief,
                    explicit_bucket_boundaries_advisory=metric.buckets,
                )
                continue
            create = (
                meter.create_observable_counter
                if metric.instrument == "observable counter"
                else meter.create_observable_up_down_counter
            )
            callback = partial(self._observe, MEASURES[metric.name])
            create(metric.name, [callback], metric.unit, metric.brief)

    def watch(self, figures: Figures) -> None:
        """Show a cache's figures for as long as it lives."""
        with self._lock:
            self._watched.add(figures)

    def _observe(
        self, measure: Callable[[Figures], Iterator[Measurement]], options: CallbackOptions
    ) -> list[Observation]:
        """Ask every cache; called from the exporter's thread."""
        with self._lock:
            watched = list(self._watched)
        sums: dict[tuple[tuple[str, str], ...], int] = {}
        for figures in watched:
            with self._shield:
                for value, attributes in list(measure(figures)):
                    key = (("tiercache.name", figures.name), *attributes.items())
                    sums[key] = sums.get(key, 0) + value
        return [Observation(value, dict(key)) for key, value in sums.items()]


def meter_of(provider: MeterProvider | None, version: str) -> Meter:
    """Return the one meter of a provider, or of the global one.

    Until the application sets the global provider, a proxy stands for it. The meter that was made
    then is bound to the real one and goes on serving it: the SDK would drop the callbacks of a
    second one with the same names.
    """
    current = get_meter_provider()
    chosen = current if provider is None else provider
    with _lock:
        meter = _meters.get(chosen)
        if meter is None and chosen is current:
            meter = _meters.get(_GLOBAL)
        if meter is None:
            meter = _meters[chosen] = Meter(chosen, version)
        if chosen is current:
            _meters.setdefault(_GLOBAL, meter)
        return meter


class _Global:
    """Stands for the global meter provider, whichever it is."""


_GLOBAL: Final = _Global()
_lock = threading.RLock()  # re-entrant: a finaliser may read from a cache
_meters: WeakKeyDictionary[MeterProvider | _Global, Meter] = WeakKeyDictionary()
