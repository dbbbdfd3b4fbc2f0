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
from random import random
from types import NoneType
from typing import Any, Final

from tiercache._flight import Flight, Outcome, current_load
from tiercache.entry import MISSING, Slot
from tiercache.loading.item import Call
from tiercache.local import Local

_VALUES: Final = frozenset({NoneType, bool, int, float, str, bytes, list, tuple, dict, set})
"""What nobody can await; for anything else it is looked up."""


class Direct:
    """The misses of a cache that has memory alone.

    ``vouched`` is for how many seconds after its loader call an entry needs no bus to vouch for it;
    infinite where there is no bus.
    """

    __slots__ = ("_local", "_vouched")

    def __init__(self, local: Local, vouched: float) -> None:
        self._local = local
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
        counters = call.counters
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
        counters = call.counters
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
        policy = call.policy
        if value is MISSING or (policy.cache_if is not None and not policy.cache_if(value)):
            self._local.land(flight, Outcome(value))
            return
        began = flight.began  # the entry's time begins when the flight did
        luck = random() if policy.jitter else 0.0  # noqa: S311 - jitter, not secrecy
        times = policy.times(began, luck)
        slot = Slot(
            flight.key,
            value,
            refresh_at=times.refresh_at,
            expires=times.expires,
            stale_until=times.stale_until,
            tags=flight.tags or (),
            marks=flight.marks,
            trusted_until=began + self._vouched,
        )
        self._local.bring(flight, slot, Outcome(value), call.name_slot)
