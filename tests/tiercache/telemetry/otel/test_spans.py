"""The spans of one cache: their shape, their errors, and who is whose parent."""

import asyncio
import gc
from collections.abc import Callable
from contextvars import copy_context

import pytest
from opentelemetry import baggage, context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    StatusCode,
    TraceFlags,
    get_current_span,
    use_span,
)

from tests.tiercache.telemetry.recorder import Recorder
from tiercache.errors import PolicyError
from tiercache.telemetry.observer import Lookup
from tiercache.telemetry.otel import OtelObserver, SpanMode


@pytest.fixture
def recorder() -> Recorder:
    """An SDK that records everything."""
    return Recorder()


@pytest.fixture
def observer(recorder: Recorder) -> OtelObserver:
    """The observer of a cache called ``app``, as it is by default."""
    return observer_of(recorder)


def observer_of(
    recorder: Recorder,
    *,
    spans: SpanMode = "miss",
    timer: Callable[[], float] = lambda: 0.0,
) -> OtelObserver:
    """Return the observer of a cache called ``app``."""
    return OtelObserver(
        "app",
        tracer_provider=recorder.tracer_provider,
        meter_provider=recorder.meter_provider,
        spans=spans,
        timer=timer,
    )


def read(observer: OtelObserver, result: str, tier: str | None = None) -> None:
    """Read once, with this result."""
    lookup = Lookup("get_or_load")
    with observer.reading(lookup):
        lookup.result, lookup.tier = result, tier  # type: ignore[assignment]


def totals(recorder: Recorder, name: str = "handler") -> tuple[object, object]:
    """Return the running totals on a span of the application: hits and misses."""
    found = recorder.span(name).attributes or {}
    return found.get("tiercache.hits"), found.get("tiercache.misses")


# --- shape


def test_a_read_that_missed_everywhere(recorder: Recorder, observer: OtelObserver) -> None:
    """The load is a child of the read, and both end with what they found out."""
    lookup = Lookup("get_or_load", key="secret", function="app.users.get_user")
    with observer.reading(lookup):
        with observer.loading(lookup, "miss"):
            pass
        lookup.result = "miss"
    reading, loading = recorder.span("get_or_load app"), recorder.span("load app")
    assert reading.context is not None
    assert loading.parent == reading.context
    assert dict(reading.attributes or {}) == {
        "tiercache.name": "app",
        "tiercache.operation.name": "get_or_load",
        "tiercache.result": "miss",
        "tiercache.hit": False,
        "tiercache.coalesced": False,
        "code.function.name": "app.users.get_user",
    }
    assert dict(loading.attributes or {}) == {"tiercache.load.reason": "miss"}
    assert reading.status.status_code is loading.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(("result", "hit"), [("hit", True), ("stale", True), ("miss", False)])
def test_a_stale_answer_is_a_hit(
    recorder: Recorder, observer: OtelObserver, result: str, hit: bool
) -> None:
    """`tiercache.hit` says whether a tier answered; `tiercache.result` says how."""
    read(observer, result)
    assert (recorder.span("get_or_load app").attributes or {})["tiercache.hit"] is hit


def test_the_key_is_on_the_span_only_where_asked_for(recorder: Recorder) -> None:
    """`span_keys=True` puts it there; nothing else does."""
    observer = OtelObserver("app", tracer_provider=recorder.tracer_provider, span_keys=True)
    with observer.reading(Lookup("get", key="user:1")):
        pass
    assert (recorder.span("get_or_load app").attributes or {})["tiercache.key"] == "user:1"


def test_what_is_sampled_may_depend_on_the_cache(recorder: Recorder) -> None:
    """A sampler sees the cache's name and the operation when the span starts."""

    class Seen(Exception):
        pass

    class Sampler:
        def should_sample(self, *arguments: object, **named: object) -> None:
            seen.append(named.get("attributes") or arguments[4])
            raise Seen

    seen: list[object] = []
    sampled = Recorder(Sampler())  # type: ignore[arg-type]
    with observer_of(sampled).reading(Lookup("get")):
        pass
    assert seen == [{"tiercache.name": "app", "tiercache.operation.name": "get"}]


def test_a_refresh_is_a_root_linked_to_its_cause(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """The trace of the request is not stretched by what goes on behind it; baggage goes along."""
    lookup = Lookup("refresh")
    token = context.attach(baggage.set_baggage("tenant", "7"))
    with recorder.application.start_as_current_span("handler") as handler:
        with observer.refreshing(lookup, "refresh_ahead"):
            assert baggage.get_baggage("tenant") == "7"
            with observer.loading(lookup, "refresh_ahead"):
                pass
        assert get_current_span() is handler
    context.detach(token)
    refresh, load = recorder.span("refresh app"), recorder.span("load app")
    assert refresh.parent is None
    assert [link.context for link in refresh.links] == [handler.get_span_context()]
    assert load.parent == refresh.context


def test_baggage_reaches_the_processors_of_a_refresh(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """What copies baggage onto spans as they start finds it for a refresh, too."""

    class Seeing(SpanProcessor):
        def on_start(self, span: Span, parent_context: context.Context | None = None) -> None:
            seen.append(baggage.get_baggage("tenant", parent_context))

    seen: list[object] = []
    recorder.tracer_provider.add_span_processor(Seeing())
    token = context.attach(baggage.set_baggage("tenant", "7"))
    with observer.refreshing(Lookup("refresh"), "refresh_ahead"):
        pass
    context.detach(token)
    assert seen == ["7"]


def test_a_refresh_without_cause_has_no_link(recorder: Recorder, observer: OtelObserver) -> None:
    """Nothing current, nothing to link to."""
    with observer.refreshing(Lookup("refresh"), "refresh_ahead"):
        pass
    refresh = recorder.span("refresh app")
    assert refresh.parent is None
    assert not refresh.links


def test_an_invalidation_is_a_child(recorder: Recorder, observer: OtelObserver) -> None:
    """It belongs to the trace of whoever asked for it."""
    with recorder.application.start_as_current_span("handler") as handler:
        with observer.invalidating("tag", 0):
            pass
    span = recorder.span("invalidate app")
    assert span.parent == handler.get_span_context()
    assert dict(span.attributes or {}) == {
        "tiercache.invalidation.scope": "tag",
        "tiercache.key.count": 0,
    }


# --- errors


def test_an_error_that_leaves_marks_the_spans_it_passes(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """Class and status; no event, no text of the exception anywhere."""
    lookup = Lookup("get_or_load")
    with pytest.raises(ValueError), observer.reading(lookup), observer.loading(lookup, "miss"):
        raise ValueError("the secret value")
    for span in recorder.spans():
        assert (span.attributes or {})["error.type"] == "ValueError"
        assert span.status.status_code is StatusCode.ERROR
        assert "secret" not in span.to_json()
        assert not span.events
    assert len(recorder.spans()) == 2


def test_an_error_that_was_survived_marks_the_load_alone(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """Where something stale stood in for a failed load, the read is no error."""
    lookup = Lookup("get_or_load")
    with observer.reading(lookup):
        with pytest.raises(ValueError), observer.loading(lookup, "expired"):
            raise ValueError
        lookup.result = "stale"
    assert recorder.span("load app").status.status_code is StatusCode.ERROR
    reading = recorder.span("get_or_load app")
    assert reading.status.status_code is StatusCode.UNSET
    assert "error.type" not in (reading.attributes or {})


async def test_a_cancellation_is_no_error(recorder: Recorder, observer: OtelObserver) -> None:
    """The spans of a cancelled read end, unmarked, and the context is as it was."""
    inside = asyncio.Event()

    async def reading() -> None:
        before = get_current_span()
        lookup = Lookup("get_or_load")
        try:
            with observer.reading(lookup), observer.loading(lookup, "miss"):
                inside.set()
                await asyncio.Event().wait()
        finally:
            assert get_current_span() is before

    task = asyncio.create_task(reading())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(recorder.spans()) == 2
    for span in recorder.spans():
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in (span.attributes or {})
    (point,) = recorder.points("tiercache.load.duration")
    assert dict(point)["error.type"] == "asyncio.exceptions.CancelledError"


# --- context


async def test_interleaved_tasks_do_not_mix_their_spans(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """Reads that overlap on one loop each parent their own load."""
    barrier = asyncio.Barrier(3)

    async def reading(number: int) -> None:
        lookup = Lookup("get_or_load", key_count=number)
        with observer.reading(lookup):
            await barrier.wait()
            mine = get_current_span().get_span_context()
            with observer.loading(lookup, "miss"):
                await barrier.wait()
            parents[number] = mine

    parents: dict[int, SpanContext] = {}
    await asyncio.gather(*(reading(number) for number in range(3)))
    by_count = {
        (span.attributes or {}).get("tiercache.key.count"): span
        for span in recorder.spans()
        if span.name == "get_or_load app"
    }
    loads = [span for span in recorder.spans() if span.name == "load app"]
    for number, expected in parents.items():
        assert by_count[number].context == expected
    assert sorted(span.parent.span_id for span in loads if span.parent) == sorted(
        each.span_id for each in parents.values()
    )


async def test_a_load_in_a_task_of_its_own_is_a_child(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """A task that is started inside a read inherits it, also when it outlives the read."""
    lookup = Lookup("get_or_load")
    go_on = asyncio.Event()

    async def load() -> None:
        await go_on.wait()
        with observer.loading(lookup, "miss"):
            pass

    with observer.reading(lookup):
        task = asyncio.create_task(load())
    go_on.set()
    await task
    assert recorder.span("load app").parent == recorder.span("get_or_load app").context


def test_a_coroutine_dropped_unfinished_leaves_no_trace_in_its_dropper(
    recorder: Recorder, observer: OtelObserver, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed by the garbage collector in another context, it ends its span and disturbs nothing."""

    class Pause:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    async def reading() -> None:
        with observer.reading(Lookup("get_or_load")):
            await Pause()

    coroutine = reading()
    copy_context().run(coroutine.send, None)
    with recorder.application.start_as_current_span("handler") as handler:
        del coroutine
        gc.collect()
        assert get_current_span() is handler
    assert recorder.span("get_or_load app").end_time is not None
    assert not caplog.records


def test_a_coroutine_closed_in_its_own_context_restores_it(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """Driven without a loop and closed half-way, a read does not stay current."""

    class Pause:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    async def reading() -> None:
        with observer.reading(Lookup("get_or_load")):
            await Pause()

    coroutine = reading()
    coroutine.send(None)
    assert get_current_span() is not INVALID_SPAN
    coroutine.close()
    assert get_current_span() is INVALID_SPAN


# --- what is not sampled


def test_always_off_is_inherited_below() -> None:
    """The unsampled span of a read is current for its loader, and costs no attribute."""
    recorder = Recorder(ALWAYS_OFF)
    observer = observer_of(recorder)
    lookup = Lookup("get_or_load")
    with observer.reading(lookup):
        reading = get_current_span().get_span_context()
        with observer.loading(lookup, "miss"):
            loading = get_current_span().get_span_context()
        lookup.result = "miss"
    with observer.refreshing(lookup, "refresh_ahead"), observer.invalidating("key", 1):
        pass
    assert reading.is_valid
    assert loading.trace_id == reading.trace_id
    assert not loading.trace_flags.sampled
    assert not recorder.spans()
    (point,) = recorder.points("tiercache.load.duration").values()
    assert point == 1


def test_without_recording_the_facts_are_not_gathered() -> None:
    """A span that nobody records never asks for the attributes of its lookup."""

    class Touched(Lookup):
        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            touched.add(name)
            return super().__getattribute__(name)

    touched: set[str] = set()
    with observer_of(Recorder(ALWAYS_OFF)).reading(Touched("get_or_load")):
        pass
    assert touched == {"operation"}


def remote() -> NonRecordingSpan:
    """Return what a propagator makes of a `traceparent` header."""
    return NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1)))


def test_a_remote_parent_is_passed_on_where_there_is_no_sdk() -> None:
    """Without an SDK what came in with the request is still current in loader and invalidation."""
    observer = OtelObserver("app", tracer_provider=NoOpTracerProvider())
    lookup = Lookup("get_or_load")
    with use_span(remote()) as parent:
        with observer.reading(lookup), observer.loading(lookup, "miss"):
            assert get_current_span() is parent
        with observer.invalidating("all", 0):
            assert get_current_span() is parent
        with observer.refreshing(lookup, "refresh_ahead"):
            assert not get_current_span().get_span_context().is_valid
        assert get_current_span() is parent


def test_a_silenced_cache_hides_no_span_of_the_application(recorder: Recorder) -> None:
    """Given a tracer provider that does nothing, the application's span stays as it is."""
    observer = OtelObserver("app", tracer_provider=NoOpTracerProvider())
    lookup = Lookup("get_or_load")
    with recorder.application.start_as_current_span("handler") as handler:
        with observer.reading(lookup), observer.loading(lookup, "miss"):
            assert get_current_span() is handler
            lookup.result = "miss"
    assert not recorder.span("handler").attributes


def test_a_remote_parent_is_the_parent_where_there_is_an_sdk(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """A read continues the trace that came in with the request."""
    with use_span(remote()):
        read(observer, "miss")
    span = recorder.span("get_or_load app")
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (7, 8)


# --- modes


def test_spans_off_makes_none_and_still_measures(recorder: Recorder) -> None:
    """`spans="off"` leaves metrics alone, and the application's span."""
    observer = observer_of(recorder, spans="off", timer=iter((1.0, 1.5)).__next__)
    lookup = Lookup("get_or_load")
    with recorder.application.start_as_current_span("handler") as handler:
        with observer.reading(lookup), observer.loading(lookup, "miss"):
            assert get_current_span() is handler
            lookup.result = "miss"
        with observer.refreshing(lookup, "stale"), observer.invalidating("all", 0):
            assert get_current_span() is handler
    assert [span.name for span in recorder.spans()] == ["handler"]
    assert not recorder.span("handler").attributes
    assert list(recorder.points("tiercache.load.duration").values()) == [1]


def test_only_all_wants_to_see_hits(recorder: Recorder) -> None:
    """A hit in L1 goes through `reading` with `spans="all"` alone."""
    assert {mode: observer_of(recorder, spans=mode).sees_hits for mode in MODES} == {
        "miss": False,
        "all": True,
        "off": False,
    }


MODES: tuple[SpanMode, ...] = ("miss", "all", "off")


def test_an_unknown_mode_is_refused(recorder: Recorder) -> None:
    """The message names the option, the value and what is accepted."""
    with pytest.raises(PolicyError, match='spans=\'some\': expected "miss", "all" or "off"'):
        observer_of(recorder, spans="some")  # type: ignore[arg-type]


# --- running totals


def test_the_caller_gets_running_totals(recorder: Recorder, observer: OtelObserver) -> None:
    """They appear with the first miss and grow with every read that L1 could not answer."""
    with recorder.application.start_as_current_span("handler") as handler:
        assert not handler.attributes  # type: ignore[attr-defined]
        for result, expected in (("miss", (0, 1)), ("hit", (1, 1)), ("stale", (2, 1))):
            read(observer, result)
            found = handler.attributes  # type: ignore[attr-defined]
            assert (found["tiercache.hits"], found["tiercache.misses"]) == expected


def test_a_bypass_counts_as_neither(recorder: Recorder, observer: OtelObserver) -> None:
    """What went round the cache says nothing about its hit rate, and neither does a failure."""
    with recorder.application.start_as_current_span("handler"):
        read(observer, "bypass")
        with pytest.raises(OSError), observer.reading(Lookup("get_or_load")):
            raise OSError
    assert totals(recorder) == (0, 0)


def test_each_span_has_totals_of_its_own(recorder: Recorder, observer: OtelObserver) -> None:
    """Two requests do not add to each other's, and neither does a span inside a request."""
    with recorder.application.start_as_current_span("handler"):
        read(observer, "miss")
        with recorder.application.start_as_current_span("inner"):
            read(observer, "hit")
    with recorder.application.start_as_current_span("other"):
        read(observer, "hit")
    assert totals(recorder, "handler") == (0, 1)
    assert totals(recorder, "inner") == (1, 0)
    assert totals(recorder, "other") == (1, 0)


def test_reads_of_a_loader_count_for_the_request(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """A cached function that calls another adds both to the span they are called under."""
    lookup = Lookup("get_or_load")
    with recorder.application.start_as_current_span("handler"):
        with observer.reading(lookup):
            with observer.loading(lookup, "miss"):
                read(observer, "hit", "l2")
            lookup.result = "miss"
    assert totals(recorder) == (1, 1)
    for span in recorder.spans():
        if span.name != "handler":
            assert "tiercache.hits" not in (span.attributes or {})


def test_caches_share_the_totals_of_a_request(recorder: Recorder) -> None:
    """However many caches a request asks, it has one pair of totals."""
    one, other = observer_of(recorder), observer_of(recorder)
    with recorder.application.start_as_current_span("handler"):
        read(one, "miss")
        read(other, "hit")
    assert totals(recorder) == (1, 1)


async def test_tasks_of_a_request_add_to_the_same_totals(
    recorder: Recorder, observer: OtelObserver
) -> None:
    """What a request asks for at once counts as what it asks for in turn."""

    async def reading() -> None:
        lookup = Lookup("get_or_load")
        with observer.reading(lookup):
            await asyncio.sleep(0)
            lookup.result = "miss"

    with recorder.application.start_as_current_span("handler"):
        await asyncio.gather(*(reading() for _ in range(5)))
    assert totals(recorder) == (0, 5)


def test_a_request_that_is_over_is_left_alone(
    recorder: Recorder, observer: OtelObserver, caplog: pytest.LogCaptureFixture
) -> None:
    """A read that ends after the caller's span has ended does not write on it."""
    lookup = Lookup("get_or_load")
    with recorder.application.start_as_current_span("handler", end_on_exit=False) as handler:
        with observer.reading(lookup):
            handler.end()
            lookup.result = "miss"
    assert totals(recorder) == (None, None)
    assert not caplog.records


def test_totals_are_for_the_default_only(recorder: Recorder) -> None:
    """Where every read makes a span the trace shows them by itself."""
    with recorder.application.start_as_current_span("handler"):
        read(observer_of(recorder, spans="all"), "miss")
    assert totals(recorder) == (None, None)
