"""The short way of a miss: nobody but the user's function has to be asked.

Where memory is the only tier and nothing is to be waited for, a miss needs none of the slow path's
coroutines. What keeps a cache right is here as well: the flight is registered before the function
is called, others join it, an invalidation voids it, and filling and landing are one step. Whatever
else a read can come to (somebody loads already, an old value may have to stand in) is left to the
slow path: `Local.lead` gives no flight then, and nothing has happened yet.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf
from random import random
from types import NoneType
from typing import Any, Final

from tiercache._flight import Flight, Outcome, current_load
from tiercache.entry import FOREVER, MISSING, Slot
from tiercache.loading.item import Call
from tiercache.local import Local
from tiercache.policy import CachePolicy
from tiercache.stats import Counters

_VALUES: Final = frozenset({NoneType, bool, int, float, str, bytes, list, tuple, dict, set})
"""What nobody can await; for anything else it is looked up."""


class Direct:
    """The misses of one function, in a cache that has memory alone.

    ``vouched`` is for how many seconds after its loader call an entry needs no bus to vouch for it;
    infinite where there is no bus.
    """

    __slots__ = (
        "_cache_if",
        "_counters",
        "_jitter",
        "_local",
        "_refresh_ahead",
        "_stale_for",
        "_ttl",
        "_vouched",
    )

    def __init__(
        self, local: Local, policy: CachePolicy, counters: Counters, vouched: float
    ) -> None:
        self._local = local
        self._counters = counters
        self._ttl = inf if policy.ttl is None else policy.ttl
        self._jitter = policy.jitter
        self._stale_for = policy.stale_for
        self._refresh_ahead = policy.refresh_ahead
        self._cache_if = policy.cache_if
        self._vouched = vouched

    def run(self, flight: Flight, call: Call, awaited: Callable[[Any], Any]) -> Any:
        """Call the function in this thread, keep what it returns, and tell everybody who waits.

        ``awaited`` waits for a result that is awaitable.
        """
        load = flight.load
        assert load is not None
        load.occupy()
        outer = load.nest()
        token = current_load.set(load)
        counters = self._counters
        counters.loads += 1
        try:
            try:
                value = call.loader()
                if value.__class__ not in _VALUES and inspect.isawaitable(value):
                    value = awaited(value)
            except Exception:
                counters.load_errors += 1
                raise
            self._land(flight, value, call)
        except Exception as error:
            self._local.land(flight, None, error)
            raise
        except BaseException:  # interrupted: who waits in another thread starts again
            self._local.land(flight, None)
            raise
        finally:
            current_load.reset(token)
            if outer is not None:
                load.leave(outer)
        counters.misses += 1
        return value

    async def carry(self, flight: Flight, call: Call) -> None:
        """Do the same in a task of its own, for an async function."""
        current_load.set(flight.load)  # the task ends with the load, and its context with the task
        counters = self._counters
        counters.loads += 1
        try:
            try:
                value = await call.loader()
            except Exception:
                counters.load_errors += 1
                raise
            self._land(flight, value, call)
        except Exception as error:  # noqa: BLE001 - raised by everybody who waits
            self._local.land(flight, None, error)
        except BaseException:  # cancelled: who waits on another loop or thread starts again
            self._local.land(flight, None)
            raise

    def _land(self, flight: Flight, value: Any, call: Call) -> None:
        cache_if = self._cache_if
        if value is MISSING or (cache_if is not None and not cache_if(value)):
            self._local.land(flight, Outcome(value))
            return
        began = flight.began  # the entry's time begins when the flight did
        ttl = self._ttl
        if ttl == inf:
            expires = refresh_at = stale_until = FOREVER
        else:
            if self._jitter:
                ttl *= 1.0 - self._jitter * random()  # noqa: S311 - jitter, not secrecy
            refresh_at = expires = stale_until = began + ttl
            if self._refresh_ahead is not None:
                refresh_at = began + ttl * self._refresh_ahead
            if self._stale_for:
                stale_until = expires + self._stale_for
        slot = Slot(
            flight.key,
            value,
            created=began,
            refresh_at=refresh_at,
            expires=expires,
            stale_until=stale_until,
            tags=flight.tags or (),
            marks=flight.marks,
            trusted_until=FOREVER if self._vouched == inf else began + self._vouched,
        )
        self._local.bring(flight, slot, Outcome(value), call.name_slot)
