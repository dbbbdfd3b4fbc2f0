"""An SDK in memory, and plain views of what it recorded."""

from collections.abc import Iterator

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import Tracer

Attributes = frozenset[tuple[str, object]]


class Recorder:
    """Providers to hand to an observer, and what they have seen."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def application(self) -> Tracer:
        """A tracer as the application around the cache would use it."""
        return self.tracer_provider.get_tracer("application")

    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in the order in which they did."""
        return list(self._exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """Return the only span of this name."""
        (found,) = (span for span in self.spans() if span.name == name)
        return found

    def metrics(self) -> Iterator[Metric]:
        """Collect, and yield the metrics of the scope ``tiercache``."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                if scope.scope.name == "tiercache":
                    yield from scope.metrics

    def points(self, name: str) -> dict[Attributes, object]:
        """Collect, and return the points of one metric: values, or the counts of a histogram."""
        return {
            frozenset((point.attributes or {}).items()): getattr(
                point, "value", getattr(point, "count", None)
            )
            for metric in self.metrics()
            if metric.name == name
            for point in metric.data.data_points
        }
