"""Reads inside the calling task's open transaction.

What a transaction sees is its own (its snapshot may be old, its writes are not committed): a load
runs in the calling task, is joined by nobody and fills nothing. Hits of what the transaction has
not invalidated are served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tiercache.callers import Caller
from tiercache.entry import MISSING
from tiercache.loading import Call, Loader, Wanted
from tiercache.stats import Counters
from tiercache.telemetry.observer import Lookup, Observer

Peek = Callable[[Wanted, Caller], Awaitable[dict[str, object]]]
"""Looks without loading, with what the transaction has invalidated left out."""


class PrivateReading:
    """Answers the reads of transactions."""

    def __init__(self, peek: Peek, observer: Observer) -> None:
        self._peek = peek
        self._observer = observer

    async def read(self, call: Call, caller: Caller, operation: str) -> object:
        """Return the call's value."""
        found = await self._find(call, caller)
        if found is not MISSING:
            return found
        lookup = Lookup(operation, key=call.key, function=call.function)
        lookup.result = "miss"
        with self._observer.reading(lookup):
            return await self._load(call.counters, lookup, caller, call.loader)

    async def read_many(
        self, calls: Sequence[Call], loader: Loader, caller: Caller
    ) -> list[object]:
        """Return the calls' values, `MISSING` for what the loader does not know."""
        values = [await self._find(call, caller) for call in calls]
        missing = [call for call, value in zip(calls, values, strict=True) if value is MISSING]
        if missing:
            lookup = Lookup("load_many", key_count=len(calls))
            lookup.result = "miss"
            with self._observer.reading(lookup):
                loaded = iter(
                    await self._load(missing[0].counters, lookup, caller, loader, missing)
                )
            values = [next(loaded) if value is MISSING else value for value in values]
        return values

    async def refresh(self, call: Call, caller: Caller) -> object:
        """Load for the transaction alone."""
        lookup = Lookup("refresh", key=call.key, function=call.function)
        return await self._load(call.counters, lookup, caller, call.loader)

    async def _find(self, call: Call, caller: Caller) -> object:
        wanted = Wanted((call.key,), call.tags, call.type, call.policy, call.counters)
        found = await self._peek(wanted, caller)
        return found.get(call.key, MISSING)

    async def _load(
        self,
        counters: Counters,
        lookup: Lookup,
        caller: Caller,
        loader: Callable[..., Any],
        *arguments: Any,
    ) -> Any:
        counters.loads += 1
        try:
            with self._observer.loading(lookup, "miss"):
                return await caller.call(loader, *arguments)
        except Exception:
            counters.load_errors += 1
            raise
