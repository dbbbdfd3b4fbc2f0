"""What a pool tells OpenTelemetry, held to the registry."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from poolkit import AcquireTimeout, Pool, Transaction
from poolkit.driver import Fault
from poolkit.telemetry import registry
from poolkit.testing import StubDriver


class Collision(Exception):
    """A race that was lost."""


class Telemetry:
    """Providers of a test's own, and what they got."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def pool(self, driver: Any, **config: Any) -> Pool:
        return Pool(
            driver,
            tracer_provider=self.tracer_provider,
            meter_provider=self.meter_provider,
            **config,
        )

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def value(self, name: str, **attributes: str) -> Any:
        for point in self.metrics()[name].data.data_points:
            if attributes.items() <= dict(point.attributes).items():
                return point.value if hasattr(point, "value") else point.count
        return None


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Providers that are shut down afterwards."""
    telemetry = Telemetry()
    yield telemetry
    telemetry.meter_provider.shutdown()
    telemetry.tracer_provider.shutdown()


async def test_every_metric_of_the_registry_and_no_other(telemetry: Telemetry) -> None:
    """A pool that has seen everything publishes what the registry lists: name, unit, attributes."""
    driver = StubDriver()
    driver.faults[Collision] = Fault("40001", retry=True)
    attempts: list[int] = []

    async def collide(tx: Transaction) -> None:
        attempts.append(1)
        if len(attempts) < 2:
            raise Collision

    async with telemetry.pool(driver, max_size=1, name="p", leak_threshold=0.005) as pool:
        async with pool.acquire():
            async with asyncio.timeout(5):
                while telemetry.value("poolkit.connection.leaks") == 0:
                    await asyncio.sleep(0.001)
            with pytest.raises(AcquireTimeout):
                await asyncio.create_task(_borrow(pool, 0.001))
        with pytest.raises(KeyError):
            async with pool.transaction():
                raise KeyError
        await pool.run(collide)
        pool.recycle()
        found = telemetry.metrics()
    assert sorted(found) == sorted(metric.name for metric in registry.METRICS)
    for metric in registry.METRICS:
        assert found[metric.name].unit == metric.unit
        assert found[metric.name].description == metric.description
        allowed = {registry.POOL_NAME, *metric.attributes}
        points = found[metric.name].data.data_points
        assert points
        for point in points:
            assert set(point.attributes) <= allowed
            assert point.attributes[registry.POOL_NAME] == "p"


async def _borrow(pool: Pool, timeout: float) -> None:
    async with pool.acquire(timeout=timeout):
        pass


async def test_the_figures_are_those_of_the_pool(telemetry: Telemetry) -> None:
    """Counts by state, bounds, waits and uses are what happened."""
    async with telemetry.pool(StubDriver(), min_size=2, max_size=5) as pool:
        async with pool.acquire():
            assert telemetry.value("db.client.connection.count", **{registry.STATE: "idle"}) == 1
            assert telemetry.value("db.client.connection.count", **{registry.STATE: "used"}) == 1
        for _ in range(9):
            await pool.fetchval("SELECT 1")
        assert telemetry.value("db.client.connection.max") == 5
        assert telemetry.value("db.client.connection.idle.min") == 2
        assert telemetry.value("db.client.connection.wait_time") == 10
        assert telemetry.value("db.client.connection.use_time") == 10
        assert telemetry.value("db.client.connection.create_time") == 2
    closed = telemetry.value("poolkit.connection.closed", **{registry.REASON: "pool_closed"})
    assert closed == 2


async def test_a_transaction_is_a_span_that_is_current(telemetry: Telemetry) -> None:
    """Its outcome and options are on it; an error that leaves is its status; nothing else is."""
    async with telemetry.pool(StubDriver(), name="p") as pool:
        async with pool.transaction(isolation="serializable", readonly=True):
            inside = trace.get_current_span()
            assert inside.get_span_context().is_valid
        assert not trace.get_current_span().get_span_context().is_valid
        with pytest.raises(KeyError):
            async with pool.transaction():
                raise KeyError("a secret")
    good, bad = telemetry.exporter.get_finished_spans()
    assert good.name == bad.name == "transaction p"
    assert good.context == inside.get_span_context()
    assert good.attributes == {
        registry.POOL_NAME: "p",
        registry.SYSTEM: "stub",
        registry.OUTCOME: "commit",
        registry.ISOLATION: "serializable",
        registry.READ_ONLY: True,
        registry.ATTEMPT: 1,
    }
    assert good.status.status_code is trace.StatusCode.UNSET
    assert bad.attributes is not None
    assert bad.attributes[registry.OUTCOME] == "rollback"
    assert bad.attributes[registry.ERROR] == "KeyError"
    assert bad.status.status_code is trace.StatusCode.ERROR
    assert "a secret" not in bad.to_json()
    assert not bad.events


async def test_only_a_wait_of_note_is_a_span(telemetry: Telemetry) -> None:
    """A borrow without a wait makes no span; one that waited or failed makes one afterwards."""
    async with telemetry.pool(StubDriver(), max_size=1, name="p") as pool:
        async with pool.acquire():
            pass
        assert not telemetry.exporter.get_finished_spans()
        async with pool.acquire():
            with pytest.raises(AcquireTimeout):
                await asyncio.create_task(_borrow(pool, 0.01))
    (span,) = telemetry.exporter.get_finished_spans()
    assert span.name == "acquire p"
    assert span.attributes is not None
    assert span.attributes[registry.ERROR] == "AcquireTimeout"
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time >= 5_000_000


async def test_a_pool_that_is_gone_publishes_nothing(telemetry: Telemetry) -> None:
    """The instruments do not keep a pool alive."""
    pool = telemetry.pool(StubDriver(), name="gone")
    await pool.fetchval("SELECT 1")
    await pool.close()
    del pool
    gc.collect()
    found = telemetry.metrics().get("db.client.connection.max")
    assert found is None or not found.data.data_points


_PROGRAMS = {
    "the API alone": """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry.sdk"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
BODY
""",
    "always off": """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
trace.set_tracer_provider(TracerProvider(sampler=ALWAYS_OFF))
BODY
""",
    "a provider that is set later": """
BODY
from opentelemetry import trace, metrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
asyncio.run(main())
assert [span.name for span in exporter.get_finished_spans()] == ["transaction late"]
names = {metric.name for resource in reader.get_metrics_data().resource_metrics
         for scope in resource.scope_metrics for metric in scope.metrics}
assert "db.client.connection.max" in names, names
""",
}
_BODY = """
import asyncio
from poolkit import Pool
pool = Pool("sqlite://", name="late")
async def main():
    async with pool:
        async with pool.transaction() as tx:
            await tx.fetchval("SELECT 1")
asyncio.run(main())
"""


@pytest.mark.parametrize("program", _PROGRAMS)
def test_in_every_kind_of_application(program: str) -> None:
    """Without an SDK, with sampling off, and with a provider that comes late, all is well."""
    text = _PROGRAMS[program].replace("BODY", _BODY)
    run: Callable[..., Any] = subprocess.run
    run([sys.executable, "-c", text], check=True, timeout=30)
