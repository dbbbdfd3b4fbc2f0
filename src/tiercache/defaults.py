"""The process-wide default cache, and the decorators of the package that use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, Unpack
from weakref import WeakSet

from tiercache import decorators
from tiercache.cache import Cache
from tiercache.calls import Definition, Host
from tiercache.decorators import Cached, CachedMany
from tiercache.policy import Duration, PolicyOptions

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.Lock()
_current: Cache | None = None
_functions: WeakSet[Definition] = WeakSet()
"""Functions of the default cache, whose hot paths a change of it has to reach."""


def configure(cache: Cache) -> Cache:
    """Make a cache the default of this process, for functions that are decorated already too.

    Every call looks the default cache up. Returns the cache; the one before is left open.
    """
    global _current
    if not isinstance(cache, Cache):
        raise TypeError(f"configure() takes a Cache, not {cache!r}; as in configure(Cache())")
    with _lock:
        previous, _current = _current, cache
    if previous is not None and previous is not cache:
        for definition in tuple(_functions):
            definition.leave()
    return cache


def default_cache() -> Cache:
    """Return the default cache: what `configure` set, else ``Cache()``, made at first need."""
    global _current
    cache = _current
    if cache is None:
        with _lock:
            if _current is None:
                _current = Cache()
            cache = _current
    return cache


def _host() -> Host:
    return default_cache().host


def cached(
    ttl: Duration | None = None,
    *,
    key: str | None = None,
    tags: Sequence[str] = (),
    ignore: Collection[str] = (),
    **policy: Unpack[PolicyOptions],
) -> Cached:
    """Cache a function's results in the default cache; see `Cache.cached`."""
    return decorators.cached(
        _host,
        ttl,
        key=key,
        tags=tags,
        ignore=ignore,
        options=policy,
        now=False,
        added=_functions.add,
    )


def cached_many(
    ttl: Duration | None = None,
    *,
    key: str,
    tags: Sequence[str] = (),
    **policy: Unpack[PolicyOptions],
) -> CachedMany:
    """Cache a batch loader's results in the default cache; see `Cache.cached_many`."""
    return decorators.cached_many(_host, ttl, key=key, tags=tags, options=policy, now=False)


def invalidates(*, tags: Sequence[str] = (), keys: Sequence[str] = ()) -> Callable[[F], F]:
    """Invalidate in the default cache after the function has succeeded; see `Cache.invalidates`."""
    return decorators.invalidates(_host, tags=tags, keys=keys)
