"""Spans as ``with`` blocks that may surround awaits, fail, and be cancelled.

A span that an SDK made but does not sample is made current all the same: what the loader calls must
inherit that decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import Token
from types import TracebackType
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Span,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from tiercache.telemetry.observer import Lookup, error_type
from tiercache.telemetry.otel.shield import Shield
from tiercache.telemetry.otel.totals import HITS, Totals

_FAILED: Final = Status(StatusCode.ERROR)  # no description: the text of an error may hold a value


class SpanScope:
    """A span that is current inside the block and ends with it."""

    __slots__ = ("_shield", "_span", "_token")

    def __init__(self, span: Span, shield: Shield) -> None:
        self._span = span
        self._shield = shield
        self._token: Token[Context] | None = None

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        span = self._span
        with self._shield:
            self._complete(span, error)
        # A coroutine that is dropped unfinished is closed in the context of whoever drops it.
        if self._token is not None and (kind is not GeneratorExit or get_current_span() is span):
            detach(self._token)
        with self._shield:
            span.end()

    def _complete(self, span: Span, error: BaseException | None) -> None:
        # A cancellation is no error: whoever asked has gone.
        if isinstance(error, Exception) and span.is_recording():
            span.set_attribute("error.type", error_type(error))
            span.set_status(_FAILED)


class ReadScope(SpanScope):
    """The span of a read, whose facts are complete when it ends."""

    __slots__ = ("_lookup", "_totals", "_with_key")

    def __init__(
        self, span: Span, shield: Shield, lookup: Lookup, totals: Totals | None, *, with_key: bool
    ) -> None:
        super().__init__(span, shield)
        self._lookup = lookup
        self._totals = totals
        self._with_key = with_key

    def _complete(self, span: Span, error: BaseException | None) -> None:
        if self._totals is not None:
            self._totals.add(self._lookup.result)
        if span.is_recording():
            span.set_attributes(dict(self._facts()))
        super()._complete(span, error)

    def _facts(self) -> Iterator[tuple[str, str | int]]:
        lookup = self._lookup
        yield "tiercache.coalesced", lookup.coalesced
        if lookup.result is not None:
            yield "tiercache.result", lookup.result
            yield "tiercache.hit", lookup.result in HITS
        if lookup.tier is not None:
            yield "tiercache.tier", lookup.tier
        if lookup.function is not None:
            yield "code.function.name", lookup.function
        if lookup.key_count is not None:
            yield "tiercache.key.count", lookup.key_count
        if self._with_key and lookup.key is not None:
            yield "tiercache.key", lookup.key


class TimedLoad:
    """Takes the time of a load, inside its span if it has one (an exemplar refers to that)."""

    __slots__ = ("_began", "_ended", "_scope", "_timer")

    def __init__(
        self,
        timer: Callable[[], float],
        ended: Callable[[float, BaseException | None], None],
        scope: SpanScope | None,
    ) -> None:
        self._timer = timer
        self._ended = ended
        self._scope = scope

    def __enter__(self) -> None:
        if self._scope is not None:
            self._scope.__enter__()
        self._began = self._timer()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended(self._timer() - self._began, error)
        if self._scope is not None:
            self._scope.__exit__(kind, error, trace)
