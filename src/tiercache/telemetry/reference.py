"""Render the reference page: ``python -m tiercache.telemetry.reference``."""

from __future__ import annotations

from collections.abc import Iterable

from tiercache.telemetry.registry import (
    ATTRIBUTES,
    CALLER_ATTRIBUTES,
    METRICS,
    POOLKIT_METRICS,
    POOLKIT_SPANS,
    SPANS,
    Attribute,
    Metric,
    Span,
)

_INTRODUCTION = """\
<!-- Rendered by `python -m tiercache.telemetry.reference`; edit telemetry/registry.py instead. -->

# Telemetry

tiercache and poolkit record spans and metrics through `opentelemetry-api`. Without an SDK nothing
is recorded and next to nothing is spent; with one, everything on this page appears under the
instrumentation scopes `tiercache` and `poolkit`. Attributes in *italics* are present where they
apply.

All spans are of kind INTERNAL. A span ends with status ERROR and `error.type` only for an error
that leaves what it surrounds; a tier that failed and was survived is not an error, and neither is a
cancellation. Neither spans nor metrics ever carry a value, a tag or the text of an exception; the
key is on a span with `span_keys=True` only.
"""

_TOTALS = """\
An L1 hit makes no span and no call of a metric: it is counted with a plain integer, which the
observable instruments publish. `spans="all"` gives up that saving and makes a span of every read,
`spans="off"` makes none.

With the default, `spans="miss"`, the span of the caller, if it is recording, also gets the running
totals {totals}, so that a trace shows how it was served. They
begin with the first read under that span that L1 could not answer, include the reads of what its
loaders call, and leave out what L1 answered: that is in `tiercache.requests`.
"""


def page() -> str:
    """Return the page as Markdown."""
    totals = " and ".join(f"`{name}`" for name in CALLER_ATTRIBUTES)
    parts = [
        _INTRODUCTION,
        "## Spans of tiercache\n",
        _spans(SPANS),
        _TOTALS.format(totals=totals),
        "## Metrics of tiercache\n",
        _metrics(METRICS),
        "The hit ratio is derived from `tiercache.requests`; `cache.stats().hit_ratio` has it for\n"
        "people. Caches of one name are summed.\n",
        "## Spans of poolkit\n",
        _spans(POOLKIT_SPANS),
        "## Metrics of poolkit\n",
        _metrics(POOLKIT_METRICS),
        "## Attributes\n",
        _attributes(ATTRIBUTES),
        "## Buckets\n",
        "Advised to the SDK, which a view can overrule; in seconds.\n",
        _buckets((*METRICS, *POOLKIT_METRICS)),
    ]
    return "\n".join(parts)


def _spans(spans: Iterable[Span]) -> str:
    rows = (
        (f"`{each.name}`", each.brief, _names(each.attributes, each.optional)) for each in spans
    )
    return _table(("span", "when", "attributes"), rows)


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = (
        (
            f"`{each.name}`",
            each.instrument,
            f"`{each.unit}`",
            each.brief,
            _names(each.attributes, each.optional),
        )
        for each in metrics
    )
    return _table(("metric", "instrument", "unit", "what", "attributes"), rows)


def _attributes(attributes: Iterable[Attribute]) -> str:
    rows = (
        (f"`{each.name}`", each.type, each.brief, ", ".join(f"`{value}`" for value in each.values))
        for each in attributes
    )
    return _table(("attribute", "type", "what", "values"), rows)


def _buckets(metrics: Iterable[Metric]) -> str:
    rows = (
        (f"`{each.name}`", " ".join(f"{limit:g}" for limit in each.buckets))
        for each in metrics
        if each.buckets
    )
    return _table(("histogram", "boundaries"), rows)


def _names(always: Iterable[str], sometimes: Iterable[str]) -> str:
    return ", ".join([*(f"`{name}`" for name in always), *(f"*`{name}`*" for name in sometimes)])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
