"""Telemetry cannot hurt: an SDK that fails everywhere changes nothing for the cache."""

import asyncio
from contextlib import AbstractContextManager
from typing import Any, NoReturn, cast

import pytest
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import TracerProvider, get_current_span

from tests.tiercache.telemetry.figures import full_cache
from tests.tiercache.telemetry.recorder import Recorder
from tiercache.telemetry.observer import Lookup
from tiercache.telemetry.otel import OtelObserver
from tiercache.telemetry.otel.shield import Shield


class Boom(Exception):
    """What a broken SDK raises."""


class Bomb:
    """Raises whatever is done with it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise Boom(name)


def use(observer: OtelObserver) -> list[str]:
    """Go through all that a cache does with its observer; return what was reached inside."""
    lookup = Lookup("get_or_load")
    reached = []
    blocks: list[tuple[str, AbstractContextManager[None]]] = [
        ("refresh", observer.refreshing(lookup, "refresh_ahead")),
        ("invalidate", observer.invalidating("key", 1)),
        ("read", observer.reading(lookup)),
        ("load", observer.loading(lookup, "miss")),
    ]
    for name, block in blocks:
        with block:
            lookup.result = "miss"
            reached.append(name)
    observer.watch(full_cache())
    observer.tier_operation("l2", "read", 0.1, None)
    observer.bus_event(0.1)
    return reached


EVERYTHING = ["refresh", "invalidate", "read", "load"]


def logged(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often the library complained; nobody else did."""
    assert {record.name for record in caplog.records} <= {"tiercache"}
    return len(caplog.records)


def test_providers_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """A cache whose providers cannot even give a tracer and a meter works, and says so once."""
    bomb: Any = Bomb()
    observer = OtelObserver("app", tracer_provider=bomb, meter_provider=bomb)
    assert use(observer) == EVERYTHING
    assert logged(caplog) == 1


def test_a_tracer_and_instruments_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Spans that cannot be started and histograms that cannot be recorded are done without."""

    class Tracers:
        def get_tracer(self, *arguments: object, **named: object) -> Bomb:
            return Bomb()

    class Meters:
        def get_meter(self, *arguments: object, **named: object) -> "Meters":
            return self

        def create(self, *arguments: object, **named: object) -> Bomb:
            return Bomb()

        create_histogram = create_observable_counter = create_observable_up_down_counter = create

    observer = OtelObserver(
        "app",
        tracer_provider=cast("TracerProvider", Tracers()),
        meter_provider=cast("MeterProvider", Meters()),
    )
    assert use(observer) == EVERYTHING
    assert logged(caplog) == 1


def test_a_processor_that_fails_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """A span that cannot be ended is no longer current after its block."""

    class Failing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise Boom

    recorder = Recorder()
    recorder.tracer_provider.add_span_processor(Failing())
    observer = OtelObserver(
        "app",
        tracer_provider=recorder.tracer_provider,
        meter_provider=recorder.meter_provider,
    )
    before = get_current_span()
    with observer.reading(Lookup("get")):
        assert get_current_span() is not before
    assert get_current_span() is before
    assert use(observer) == EVERYTHING
    assert logged(caplog) == 1


def test_the_error_of_a_loader_is_not_swallowed() -> None:
    """Only what telemetry raises stays inside; the loader's own error is what the caller gets."""

    class Failing(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise Boom

    recorder = Recorder()
    recorder.tracer_provider.add_span_processor(Failing())
    observer = OtelObserver("app", tracer_provider=recorder.tracer_provider)
    error = ValueError()
    with pytest.raises(ValueError) as caught, observer.reading(Lookup("get")):
        raise error
    assert caught.value is error


def test_each_cache_complains_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    """One cache's failure does not hide that of another."""
    bomb: Any = Bomb()
    for name in ("one", "other"):
        OtelObserver(name, tracer_provider=bomb)
    assert logged(caplog) == 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, asyncio.CancelledError, SystemExit])
def test_interruptions_pass(interruption: type[BaseException]) -> None:
    """Being interrupted while in the SDK is no failure of the SDK."""
    with pytest.raises(interruption), Shield():
        raise interruption
