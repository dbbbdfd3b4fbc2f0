"""The methods of a cache, written once: `Cache` awaits them, its blocking face drives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiercache.callers import Caller
from tiercache.calls import Host
from tiercache.codec import return_type
from tiercache.errors import KeyTemplateError
from tiercache.keys import versioned
from tiercache.keys.scalars import is_writable
from tiercache.loading import KeyCall, Wanted
from tiercache.policy import CachePolicy, PolicyOptions
from tiercache.stats import Counters


class Operations:
    """What can be asked of a cache by key."""

    def __init__(self, host: Host, counters: Counters) -> None:
        self._host = host
        self._counters = counters
        self._policies: dict[object, CachePolicy] = {}

    async def _ready(self, caller: Caller) -> Host:
        host = self._host
        host.ready()
        if host.opening:
            await host.settle(caller)
        return host

    def _merged(self, policy: CachePolicy, ttl: Any, options: PolicyOptions) -> CachePolicy:
        """Merge once for each set of options: that costs ten times what a hit does."""
        try:
            kinds = (ttl.__class__, *(value.__class__ for value in options.values()))
            asked = (policy, ttl, *options.items(), kinds)  # 1 and True are equal, not alike
            merged = self._policies.get(asked)
        except TypeError:  # something that has no hash, which merging refuses or takes as it is
            return self._host.engine.grant(policy.merged(ttl=ttl, **options))
        if merged is None:
            if len(self._policies) >= _POLICIES:
                self._policies.clear()
            merged = self._host.engine.grant(policy.merged(ttl=ttl, **options))
            self._policies[asked] = merged
        return merged

    async def get(self, caller: Caller, key: str, default: Any, type_: Any) -> Any:
        """Return one value, or the default."""
        found = await self.get_many(caller, [key], type_)
        return found.get(key, default)

    async def get_many(self, caller: Caller, keys: Sequence[str], type_: Any) -> dict[str, Any]:
        """Return those that are there."""
        host = await self._ready(caller)
        wanted = Wanted(_keys(keys), None, lambda: type_, host.policy, self._counters)
        return await host.engine.peek(wanted, caller)

    async def set_many(
        self, caller: Caller, items: Mapping[str, Any], ttl: Any, tags: Sequence[str]
    ) -> None:
        """Store values."""
        host = await self._ready(caller)
        _keys(tuple(items))
        if host.engine.is_bypassed() or not items:
            return
        await host.writing.put(items, _tags(tags), self._merged(host.policy, ttl, {}), caller)

    async def get_or_load(
        self,
        caller: Caller,
        key: str,
        loader: Callable[[], Any],
        ttl: Any,
        tags: Sequence[str],
        options: PolicyOptions,
    ) -> Any:
        """Return the value, loading it if no tier has it."""
        host = await self._ready(caller)
        if not callable(loader):
            raise TypeError(
                f"loader={loader!r} of get_or_load({key!r}, ...) is not callable: pass a function "
                "without arguments, such as lambda: load(key)"
            )
        policy = self._merged(host.policy, ttl, options)
        call = KeyCall(
            versioned(_keys([key])[0], policy.version),
            _tags(tags),
            policy,
            self._counters,
            loader=loader,
            type_=lambda: return_type(loader),
        )
        return await host.engine.read(call, caller)

    async def invalidate(self, caller: Caller, keys: Sequence[str], tags: Sequence[str]) -> bool:
        """Invalidate keys and tags."""
        host = await self._ready(caller)
        if not keys and not tags:
            return True
        return await host.writing.invalidate(_keys(keys), _tags(tags), caller)

    async def clear(self, caller: Caller) -> bool:
        """Invalidate everything."""
        host = await self._ready(caller)
        return await host.writing.clear(caller)


_POLICIES = 256
"""How many merged policies are remembered; a lambda made at every call would be a new one each."""


def _keys(keys: Sequence[str]) -> list[str]:
    if isinstance(keys, str):
        raise KeyTemplateError(
            f"keys={keys!r} is refused: give a list or tuple of keys, as in get_many([{keys!r}])"
        )
    for key in keys:
        if not isinstance(key, str) or not key:
            raise KeyTemplateError(
                f"{key!r} is not a key: keys are texts that are not empty; "
                "the key of a decorated call is f.key(*args)"
            )
        if not is_writable(key):
            raise KeyTemplateError(
                f"{key!r} is not a key: it holds a NUL or a lone surrogate, which not every tier "
                "can store"
            )
    return list(keys)


def _tags(tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags):
        raise KeyTemplateError(
            f"tags={tags!r} is refused: give a list or tuple of texts, as in tags=['user:1']"
        )
    if not all(map(is_writable, tags)):
        raise KeyTemplateError(
            f"tags={tags!r} is refused: a tag holds a NUL or a lone surrogate, which not every "
            "tier can store"
        )
    return tuple(sorted(set(tags)))
