"""Caches for the tests of tiercache, closed when the test is over."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tiercache import Cache
from tiercache.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture
def make_cache() -> Iterator[Callable[..., Cache]]:
    """Make caches that are closed after the test."""
    made: list[Cache] = []

    def make(*tiers: Any, **options: Any) -> Cache:
        made.append(Cache(*tiers, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], clock: FakeClock) -> Cache:
    """A cache in memory, on the test's clock."""
    return make_cache(clock=clock)
