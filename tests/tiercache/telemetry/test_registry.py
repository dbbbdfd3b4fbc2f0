"""The registry and the page that is rendered from it."""

import subprocess
import sys
from pathlib import Path

from poolkit._ledger import Reason as CloseReason
from tiercache.stats import LEVELS, Tally
from tiercache.telemetry.measurements import MEASURES
from tiercache.telemetry.reference import page
from tiercache.telemetry.registry import (
    ATTRIBUTES,
    CALLER_ATTRIBUTES,
    METRICS,
    POOLKIT_METRICS,
    POOLKIT_SPANS,
    SPANS,
)

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "telemetry.md"

ATTRIBUTE = {each.name: each for each in ATTRIBUTES}


def test_the_reference_page_is_what_the_registry_renders() -> None:
    """`python -m tiercache.telemetry.reference > docs/reference/telemetry.md` changes nothing."""
    assert PAGE.read_text() == page()


def test_the_command_prints_the_page() -> None:
    """The module run as a program prints the page and nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "tiercache.telemetry.reference"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, page()), done.stderr


def test_every_attribute_is_explained_and_used() -> None:
    """The attributes that spans and metrics name are those that the registry explains."""
    spans, metrics = (*SPANS, *POOLKIT_SPANS), (*METRICS, *POOLKIT_METRICS)
    used = {name for span in spans for name in span.attributes + span.optional}
    used |= {name for metric in metrics for name in metric.attributes + metric.optional}
    named = {part.partition("}")[0] for span in spans for part in span.name.split("{")[1:]}
    assert used | named | set(CALLER_ATTRIBUTES) == set(ATTRIBUTE)


def test_no_name_is_listed_twice() -> None:
    """Spans, metrics and attributes each have one entry per name."""
    for entries in (ATTRIBUTES, (*SPANS, *POOLKIT_SPANS), (*METRICS, *POOLKIT_METRICS)):
        names = [each.name for each in entries]
        assert len(names) == len(set(names))


def test_every_metric_says_whose_it_is() -> None:
    """A metric of the cache carries its name, one of the pool the pool's; none carries a key."""
    assert all("tiercache.name" in each.attributes for each in METRICS)
    assert all("db.client.connection.pool.name" in each.attributes for each in POOLKIT_METRICS)
    assert not any("tiercache.key" in (*each.attributes, *each.optional) for each in METRICS)


def test_every_observable_instrument_is_measured() -> None:
    """There is a measure for each observable instrument, and for nothing else."""
    observable = {each.name for each in METRICS if each.instrument.startswith("observable")}
    assert set(MEASURES) == observable


def test_the_histograms_come_with_buckets() -> None:
    """Each histogram of the cache advises ascending boundaries; no other instrument has any."""
    for each in METRICS:
        assert bool(each.buckets) == (each.instrument == "histogram")
        assert list(each.buckets) == sorted(set(each.buckets))


def test_the_buckets_of_tier_operations_are_the_agreed_ones() -> None:
    """From a tenth of a millisecond to two and a half seconds."""
    (metric,) = (each for each in METRICS if each.name == "tiercache.operation.duration")
    expected = "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5"
    assert metric.buckets == tuple(float(limit) for limit in expected.split())


def test_the_fixed_values_are_those_of_the_code() -> None:
    """Where the code counts or names by a fixed set of words, the registry lists the same."""
    tally = Tally()
    assert ATTRIBUTE["tiercache.eviction.reason"].values == tuple(tally.evictions)
    assert ATTRIBUTE["tiercache.invalidation.source"].values == tuple(tally.invalidations)
    assert ATTRIBUTE["tiercache.tier"].values == tuple(LEVELS.values())
    reasons = {reason.value for reason in CloseReason}
    assert set(ATTRIBUTE["poolkit.connection.close.reason"].values) == reasons
