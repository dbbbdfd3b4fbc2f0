"""A real cache and a real pool under the OpenTelemetry SDK, held to the registry."""

import asyncio
import gc
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poolkit import Pool
from tiercache import Cache, DatabaseTier, MemoryTier, RedisTier
from tiercache.telemetry import registry


class Collected:
    """Providers of one test, and what they were given."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meters = MeterProvider([self.reader])

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> dict[tuple[Any, ...], Any]:
        """Return the values of a metric by its attributes, the cache's name left out."""
        return {
            tuple(sorted((k, v) for k, v in point.attributes.items() if not k.endswith("name"))): (
                getattr(point, "value", None)
            )
            for point in self.metrics()[name].data.data_points
        }


@pytest.fixture
def collected() -> Iterable[Collected]:
    """Providers that collect in memory."""
    found = Collected()
    yield found
    found.meters.shutdown()
    found.tracers.shutdown()


def _matches(name: str, kinds: Iterable[registry.Span]) -> registry.Span | None:
    for kind in kinds:
        pattern = re.sub(r"\\\{[^}]*\\\}", ".+", re.escape(kind.name))
        if re.fullmatch(pattern, name):
            return kind
    return None


async def test_everything_is_in_the_registry(
    collected: Collected, redis_url: str, sqlite_path: Path
) -> None:
    """Every span and metric of a whole life of a cache and a pool is one of the registry's."""
    providers = {"tracer_provider": collected.tracers, "meter_provider": collected.meters}
    async with (
        Pool(f"sqlite:///{sqlite_path}", name="app", **providers) as pool,
        Cache(
            MemoryTier(max_entries=100, max_bytes=10_000_000),
            RedisTier(redis_url),
            DatabaseTier(pool),
            name="shop",
            **providers,
        ) as cache,
    ):

        @cache.cached(ttl=60, tags=["t:{x}"])
        async def load(x: int) -> int:
            if x < 0:
                raise ValueError(x)
            return x

        await asyncio.gather(*(load(1) for _ in range(5)))
        await load(1)
        with pytest.raises(ValueError):
            await load(-1)
        await load.refresh(1)
        await cache.set("k", 1)
        await cache.get("nothing")
        await load.invalidate(1)
        async with pool.transaction() as tx:
            await tx.execute("CREATE TABLE x (y)")
            await cache.invalidate(tags=["t:1"])
        await cache.clear()

        spans = collected.spans.get_finished_spans()
        metrics = collected.metrics()
        requests = collected.points("tiercache.requests")
        invalidations = collected.points("tiercache.invalidations")

    kinds = (*registry.SPANS, *registry.POOLKIT_SPANS)
    for span in spans:
        kind = _matches(span.name, kinds)
        assert kind is not None, span.name
        unknown = set(span.attributes or ()) - {*kind.attributes, *kind.optional}
        assert not unknown, (span.name, unknown)
        assert set(kind.attributes) <= set(span.attributes or ()), span.name
    names = {span.name for span in spans}
    assert {"get_or_load shop", "load shop", "invalidate shop", "transaction app"} <= names

    known = {each.name: each for each in (*registry.METRICS, *registry.POOLKIT_METRICS)}
    for name, metric in metrics.items():
        assert name in known, name
        assert metric.unit == known[name].unit
        for point in metric.data.data_points:
            found = set(point.attributes)
            assert set(known[name].attributes) <= found, name
            assert found <= {*known[name].attributes, *known[name].optional}, name
    assert {"tiercache.requests", "tiercache.operation.duration", "tiercache.io"} <= set(metrics)
    assert {"db.client.connection.count", "db.client.connection.max"} <= set(metrics)
    assert requests[("tiercache.result", "hit"), ("tiercache.tier", "l1")] == 1
    assert invalidations[(("tiercache.invalidation.source", "outbox"),)] == 1


async def test_a_load_is_inside_its_request(collected: Collected) -> None:
    """The load's span is a child of the request's, and the user's spans are children of that."""
    async with Cache(name="shop", tracer_provider=collected.tracers) as cache:
        tracer = collected.tracers.get_tracer("app")

        async def load() -> int:
            with tracer.start_as_current_span("query"):
                return 1

        with tracer.start_as_current_span("handler"):
            await cache.get_or_load("k", load)
    spans = {span.name: span for span in collected.spans.get_finished_spans()}
    chain = ["query", "load shop", "get_or_load shop", "handler"]
    for child, parent in itertools.pairwise(chain):
        assert spans[child].parent is not None
        assert spans[child].parent.span_id == spans[parent].context.span_id


async def test_no_span_for_a_hit(collected: Collected) -> None:
    """An L1 hit makes no span, unless all are wanted."""
    for spans, expected in (("miss", 1), ("all", 3), ("off", 0)):
        collected.spans.clear()
        async with Cache(name="c", tracer_provider=collected.tracers, spans=spans) as cache:  # type: ignore[arg-type]
            load = cache.cached(ttl=60)(_answer)
            for _ in range(3):
                await load()
        names = [span.name for span in collected.spans.get_finished_spans()]
        assert names.count("get_or_load c") == expected


async def _answer() -> int:
    return 1


async def test_a_loader_that_fails_marks_its_span(collected: Collected) -> None:
    """The error leaves the library, so both spans carry its type; neither carries its text."""
    async with Cache(name="c", tracer_provider=collected.tracers) as cache:

        async def load() -> int:
            raise ValueError("secret")

        with pytest.raises(ValueError):
            await cache.get_or_load("k", load)
    for span in collected.spans.get_finished_spans():
        assert (span.attributes or {})["error.type"] == "ValueError"
        assert "secret" not in span.to_json()


def test_figures_outlive_functions(make_cache: Callable[..., Cache]) -> None:
    """What a function counted stays in the cache's figures when the function is gone."""
    cache = make_cache()

    def use() -> None:
        @cache.cached(ttl=60)
        def load() -> int:
            return 1

        load()

    use()
    gc.collect()
    assert cache.stats().loads == 1
