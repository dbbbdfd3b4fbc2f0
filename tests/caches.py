"""Caches for the tests of tiercache, closed when the test is over."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tiercache import Cache
from tiercache.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


class Made(list[Cache]):
    """Makes caches, and remembers them."""

    def __call__(self, *tiers: Any, **options: Any) -> Cache:
        """Make one more."""
        self.append(Cache(*tiers, **options))
        return self[-1]


@pytest.fixture
def make_cache() -> Iterator[Callable[..., Cache]]:
    """Make caches that are closed after the test."""
    made = Made()
    yield made
    for cache in made:
        cache.close()


@pytest.fixture
async def make_cache_here() -> AsyncIterator[Callable[..., Cache]]:
    """Make caches that are closed on the loop of the test, where they have connections."""
    made = Made()
    yield made
    for cache in made:
        await cache.aclose()


@pytest.fixture
def cache(make_cache: Callable[..., Cache], clock: FakeClock) -> Cache:
    """A cache in memory, on the test's clock."""
    return make_cache(clock=clock)
