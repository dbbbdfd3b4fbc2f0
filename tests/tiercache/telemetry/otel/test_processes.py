"""What depends on the state of a whole process: which OpenTelemetry is there, and since when."""

import subprocess
import sys
from textwrap import dedent

PROGRAM = """
    import sys
    from tests.tiercache.telemetry.figures import full_cache
    from tiercache.telemetry.observer import Lookup
    from tiercache.telemetry.otel import OtelObserver

    def use(observer):
        lookup = Lookup("get_or_load")
        with observer.reading(lookup), observer.loading(lookup, "miss"):
            lookup.result = "miss"
        with observer.refreshing(lookup, "stale"), observer.invalidating("key", 1):
            pass
        observer.tier_operation("l2", "read", 0.1, None)
        observer.bus_event(0.1)
"""


def run(program: str) -> str:
    """Run a program in a new interpreter that takes warnings as errors; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", dedent(PROGRAM) + dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


def test_without_an_sdk_everything_works_and_nothing_happens() -> None:
    """With the API alone, the SDK being absent, the context stays untouched and nothing is said."""
    program = """
        sys.modules["opentelemetry.sdk"] = None  # importing it now raises
        from opentelemetry.trace import get_current_span

        observer = OtelObserver("app")
        cache = full_cache()
        observer.watch(cache)
        use(observer)
        before = get_current_span()
        block = observer.reading(Lookup("get"))
        with block:
            assert get_current_span() is before
        assert block is observer.reading(Lookup("get_many"))  # nothing was even made
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk")))
    """
    assert run(program) == "['opentelemetry.sdk']"


def test_an_sdk_that_comes_later_gets_everything() -> None:
    """Providers that the application sets after its caches were made see them all, each once."""
    program = """
        from opentelemetry import metrics, trace

        first, caches = OtelObserver("first"), [full_cache("first"), full_cache("second")]
        first.watch(caches[0])
        use(first)  # seen by nobody

        from tests.tiercache.telemetry.recorder import Recorder

        recorder = Recorder()
        trace.set_tracer_provider(recorder.tracer_provider)
        metrics.set_meter_provider(recorder.meter_provider)
        second = OtelObserver("second")
        second.watch(caches[1])
        third = OtelObserver("third", meter_provider=recorder.meter_provider)
        for observer in (first, second, third):
            use(observer)

        spans = [span.name for span in recorder.spans()]
        assert len(spans) == 12 and spans.count("load first") == spans.count("load third") == 1
        found = recorder.points("tiercache.requests")
        assert {dict(point)["tiercache.name"] for point in found} == {"first", "second"}
        loads = recorder.points("tiercache.load.duration")
        assert sorted((dict(point)["tiercache.name"], count) for point, count in loads.items()) == [
            ("first", 1), ("second", 1), ("third", 1)
        ]
        names = [metric.name for metric in recorder.metrics()]
        assert len(names) == len(set(names)) == 15
        print("ok")
    """
    assert run(program) == "ok"


def test_a_provider_that_becomes_the_global_one_keeps_its_instruments() -> None:
    """Passed to one cache first and set globally later, it still has each instrument once."""
    program = """
        from opentelemetry import metrics
        from tests.tiercache.telemetry.recorder import Recorder

        recorder = Recorder()
        caches = [full_cache("first"), full_cache("second")]
        OtelObserver("first", meter_provider=recorder.meter_provider).watch(caches[0])
        metrics.set_meter_provider(recorder.meter_provider)
        OtelObserver("second").watch(caches[1])
        found = recorder.points("tiercache.requests")
        print(*sorted({dict(point)["tiercache.name"] for point in found}))
    """
    assert run(program) == "first second"


def test_importing_the_package_leaves_opentelemetry_alone() -> None:
    """The API is imported with the first cache, not with the package."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tiercache; print('opentelemetry.trace' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.strip() == "False", done.stderr
