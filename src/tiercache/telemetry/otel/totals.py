"""The running totals that a trace shows: how the reads under one recording span were answered."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary, ref

from opentelemetry.trace import Span

from tiercache.telemetry.observer import Result

HITS: tuple[Result, ...] = ("hit", "stale")
"""The results that are a tier's answer."""


class Totals:
    """Counts for one span of the application, written on it at every change while it records."""

    __slots__ = ("_hits", "_lock", "_misses", "_span")

    def __init__(self, span: Span) -> None:
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0
        self._span = ref(span)

    def add(self, result: Result | None) -> None:
        """Count one read that L1 could not answer."""
        with self._lock:
            self._hits += result in HITS
            self._misses += result == "miss"
            span = self._span()
            if span is not None and span.is_recording():
                span.set_attributes(
                    {"tiercache.hits": self._hits, "tiercache.misses": self._misses}
                )


def totals_under(parent: Span, ours: Span) -> Totals:
    """Return the totals of the application's span, whether it or one of ours is the parent.

    What happens below our own span (a loader that reads another function) adds to them too.
    """
    with _lock:
        totals = _totals.get(parent)
        if totals is None:
            totals = _totals[parent] = Totals(parent)
        _totals[ours] = totals
        return totals


_lock = threading.RLock()  # re-entrant: a finaliser may read from a cache
_totals: WeakKeyDictionary[Span, Totals] = WeakKeyDictionary()
