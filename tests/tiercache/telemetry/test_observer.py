"""The observer that is there when nobody watches, and how errors are named."""

import asyncio

import pytest

from tests.tiercache.telemetry.figures import PaperCache
from tiercache.errors import LoadTimeout
from tiercache.telemetry.observer import Lookup, NullObserver, Observer, error_type


def test_the_null_observer_does_nothing_to_anything() -> None:
    """Its blocks can be nested and re-entered, let errors through, and want no hits."""
    observer: Observer = NullObserver()
    lookup = Lookup("get")
    observer.watch(PaperCache())
    observer.tier_operation("l2", "read", 0.1, None)
    observer.bus_event(0.1)
    assert not observer.sees_hits
    with (
        observer.invalidating("key", 1),
        observer.reading(lookup),
        observer.loading(lookup, "miss"),
        observer.refreshing(lookup, "refresh_ahead"),
        pytest.raises(KeyError),
        observer.reading(lookup),
    ):
        raise KeyError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), "ValueError"),
        (LoadTimeout("x", key="k", timeout=1), "tiercache.errors.LoadTimeout"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
    ],
)
def test_an_error_is_named_by_its_class(error: BaseException, expected: str) -> None:
    """Built-in errors by their name, others with their module, and never with their text."""
    assert error_type(error) == expected
