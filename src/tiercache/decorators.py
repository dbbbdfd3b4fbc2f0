"""`cached`, `cached_many` and `invalidates`: bind a call, build its key, ask the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

import wrapt

from tiercache.callers import drive
from tiercache.calls import Definition, Host
from tiercache.entry import MISSING
from tiercache.errors import KeyTemplateError, PolicyError
from tiercache.faces import AsyncBatch, AsyncHandle, SyncBatch, SyncHandle
from tiercache.handle import Handle, made
from tiercache.keys import Template, function_identity
from tiercache.naming import texts
from tiercache.policy import CachePolicy, PolicyOptions, parse_duration

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])
Ttl = float | str | timedelta | None


class Cached(Protocol):
    """The decorator that ``cached(...)`` returns; it keeps the signature for type checkers."""

    # The overloads overlap (a coroutine is a T, too); the first that fits is the one that is meant.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: classmethod[Any, P, Coroutine[Any, Any, T]], /
    ) -> AsyncHandle[P, T]: ...
    @overload
    def __call__(self, function: classmethod[Any, P, T], /) -> SyncHandle[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, Coroutine[Any, Any, T]], /
    ) -> AsyncHandle[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: staticmethod[P, T], /
    ) -> SyncHandle[P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncHandle[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> SyncHandle[P, T]: ...


class CachedMany(Protocol):
    """The decorator that ``cached_many(...)`` returns."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, dict[K, V]]], /
    ) -> AsyncBatch[P, K, V]: ...
    @overload
    def __call__(self, function: Callable[P, dict[K, V]], /) -> SyncBatch[P, K, V]: ...


def cached(
    host: Callable[[], Host],
    ttl: Ttl,
    *,
    key: str | None,
    tags: Sequence[str],
    ignore: Collection[str],
    options: PolicyOptions,
    now: bool,
    added: Callable[[Definition], None] | None = None,
) -> Cached:
    """Return the decorator. ``now`` joins the cache when decorating, else at the first call.

    ``added`` is told of each function.
    """
    _check(ttl, options)

    def decorate(function: Any, /) -> Handle:
        definition = Definition(
            _function(function, "cached"),
            ttl=ttl,
            key=key,
            tags=tags,
            ignore=ignore,
            options=options,
            host=host,
        )
        if now:
            definition.join()
        if added is not None:
            added(definition)
        return made(function, definition, definition.hot.call)

    return cast("Cached", decorate)


def cached_many(
    host: Callable[[], Host],
    ttl: Ttl,
    *,
    key: str,
    tags: Sequence[str],
    options: PolicyOptions,
    now: bool,
) -> CachedMany:
    """Return the decorator of a batch loader; ``now`` as in `cached`."""
    _check(ttl, options)

    def decorate(function: Any, /) -> Handle:
        definition = Definition(
            _function(function, "cached_many"),
            ttl=ttl,
            key=key,
            tags=tags,
            ignore=(),
            options=options,
            host=host,
            many=True,
        )
        if now:
            definition.join()
        call = _many_async(definition) if definition.is_async else _many(definition)
        return made(function, definition, call)

    return cast("CachedMany", decorate)


def _many_async(definition: Definition) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> dict[Any, Any]:
        arguments = definition.hot.bound(*args, **kwargs)
        host = definition.host()
        ids, calls, load = definition.calls(arguments, host, host.task_caller)
        values = await host.engine.read_many(calls, load, host.task_caller)
        return _found(ids, values)

    return call


def _many(definition: Definition) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> dict[Any, Any]:
        arguments = definition.hot.bound(*args, **kwargs)
        host = definition.host()
        ids, calls, load = definition.calls(arguments, host, host.thread_caller)
        values = drive(host.engine.read_many(calls, load, host.thread_caller))
        return _found(ids, values)

    return call


def _found(ids: Sequence[Any], values: Sequence[object]) -> dict[Any, Any]:
    return {one: value for one, value in zip(ids, values, strict=True) if value is not MISSING}


def invalidates(
    host: Callable[[], Host], *, tags: Sequence[str], keys: Sequence[str]
) -> Callable[[F], F]:
    """Return the decorator of a writer: what it names is invalidated once it has succeeded.

    Templates see its arguments and ``result``. Within an open poolkit transaction the
    invalidation waits for the commit.
    """
    if not tags and not keys:
        raise KeyTemplateError(
            'invalidates() names nothing to invalidate: give tags=["..."] or keys=["..."]'
        )

    def decorate(function: F, /) -> F:
        inner = _function(function, "invalidates")
        where = function_identity(inner)
        signature = inspect.signature(inner)
        names = [*signature.parameters, "result"]
        tag_templates = [
            Template(tag, option="tags", names=names, where=where)
            for tag in texts(tags, "tags", where)
        ]
        key_templates = [
            Template(key, option="keys", names=names, where=where)
            for key in texts(keys, "keys", where)
        ]

        def named(
            instance: Any, args: Any, kwargs: Any, result: Any
        ) -> tuple[list[str], list[str]]:
            prefix = () if instance is None or isinstance(function, staticmethod) else (instance,)
            bound = signature.bind(*prefix, *args, **kwargs)
            bound.apply_defaults()
            arguments = {**bound.arguments, "result": result}
            return (
                [each.render(arguments) for each in key_templates],
                [each.render(arguments) for each in tag_templates],
            )

        if inspect.iscoroutinefunction(inner):

            async def call_async(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                result = await wrapped(*args, **kwargs)
                cache = _ready(host)
                await cache.writing.invalidate(
                    *named(instance, args, kwargs, result), cache.task_caller
                )
                return result

            return cast("F", wrapt.FunctionWrapper(function, call_async))

        def call(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
            result = wrapped(*args, **kwargs)
            cache = _ready(host)
            drive(
                cache.writing.invalidate(
                    *named(instance, args, kwargs, result), cache.thread_caller
                )
            )
            return result

        return cast("F", wrapt.FunctionWrapper(function, call))

    return decorate


def _ready(host: Callable[[], Host]) -> Host:
    cache = host()
    cache.ready()
    return cache


def _function(function: Any, decorator: str) -> Callable[..., Any]:
    """Return the plain function inside; refuse what cannot be decorated."""
    inner = function.__func__ if isinstance(function, classmethod | staticmethod) else function
    name = getattr(inner, "__qualname__", repr(inner))
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise TypeError(
            f"{decorator} cannot decorate {name}: it is a generator function, whose result can be "
            "read only once; decorate a function that returns the whole list instead"
        )
    if not callable(inner) or isinstance(inner, type):
        raise TypeError(
            f"{decorator} decorates functions, not {inner!r}; "
            "did you forget the parentheses of @cached(...)?"
        )
    return cast("Callable[..., Any]", inner)


def _check(ttl: Ttl, options: PolicyOptions) -> None:
    """Refuse bad options where they are written, not at the first call."""
    if callable(ttl):
        raise PolicyError(
            f'ttl={ttl!r} is a function: write @cached() with parentheses, as in @cached(ttl="5m")'
        )
    CachePolicy.check(**options)
    if ttl is not None:
        parse_duration(ttl, "ttl")
