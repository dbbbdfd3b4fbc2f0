"""How type checkers see decorated functions: their signature, and the methods of the handle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from tiercache.entry import Missing
from tiercache.stats import CacheStats

P = ParamSpec("P")
Q = ParamSpec("Q")
K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Key(str):
    """A key's text. It may be awaited, like all that the handle of an async function returns."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, str]:
        return _done(str(self))


class FunctionStats(CacheStats):
    """The figures of an async function; may be awaited."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, CacheStats]:
        return _done(self)


def _done(value: T) -> Generator[None, None, T]:
    return value
    yield  # a generator that ends at once: awaiting it takes no turn of the loop


class AsyncHandle(Protocol[P, T_co]):
    """A decorated async function."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function itself."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Return the value: from a tier, or from the function."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key under which the result of this call is kept."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]:
        """Drop the result of this call everywhere; True when every tier was reached."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T_co]:
        """Call the function now and keep its result, whatever was there."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T_co | Missing]:
        """Return what the tiers hold of this call, or `MISSING`; never calls the function."""
        ...

    def stats(self) -> FunctionStats:
        """Return this function's figures."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> AsyncUnbound[P, T_co]: ...
    @overload
    def __get__(
        self: AsyncHandle[Concatenate[Any, Q], T], instance: object, owner: Any = None
    ) -> AsyncHandle[Q, T]: ...


class AsyncUnbound(AsyncHandle[P, T_co], Protocol[P, T_co]):
    """One that is seen on its class.

    A method takes its instance there, a class method is bound already; type checkers hand both over
    as the function inside, so either way of calling is right.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]: ...
    @overload
    def __call__(
        self: AsyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def key(self, *args: P.args, **kwargs: P.kwargs) -> Key: ...
    @overload
    def key(
        self: AsyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> Key: ...
    @overload
    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[bool]: ...
    @overload
    def invalidate(
        self: AsyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> Awaitable[bool]: ...
    @overload
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T_co]: ...
    @overload
    def refresh(
        self: AsyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> Awaitable[T]: ...
    @overload
    def peek(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T_co | Missing]: ...
    @overload
    def peek(
        self: AsyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> Awaitable[T | Missing]: ...


class SyncHandle(Protocol[P, T_co]):
    """A decorated function that blocks."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function itself."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Return the value: from a tier, or from the function."""
        ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result of this call is kept."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop the result of this call everywhere; True when every tier was reached."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Call the function now and keep its result, whatever was there."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> T_co | Missing:
        """Return what the tiers hold of this call, or `MISSING`; never calls the function."""
        ...

    def stats(self) -> CacheStats:
        """Return this function's figures."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> SyncUnbound[P, T_co]: ...
    @overload
    def __get__(
        self: SyncHandle[Concatenate[Any, Q], T], instance: object, owner: Any = None
    ) -> SyncHandle[Q, T]: ...


class SyncUnbound(SyncHandle[P, T_co], Protocol[P, T_co]):
    """One that is seen on its class.

    A method takes its instance there, a class method is bound already; type checkers hand both over
    as the function inside, so either way of calling is right.
    """

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def __call__(
        self: SyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> T: ...
    @overload
    def key(self, *args: P.args, **kwargs: P.kwargs) -> str: ...
    @overload
    def key(
        self: SyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> str: ...
    @overload
    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def invalidate(
        self: SyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> bool: ...
    @overload
    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...
    @overload
    def refresh(
        self: SyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> T: ...
    @overload
    def peek(self, *args: P.args, **kwargs: P.kwargs) -> T_co | Missing: ...
    @overload
    def peek(
        self: SyncUnbound[Concatenate[Any, Q], T], *args: Q.args, **kwargs: Q.kwargs
    ) -> T | Missing: ...


class AsyncBatch(Protocol[P, K, V]):
    """A decorated batch loader; its methods take one id, then the loader's other arguments."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The loader itself."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, dict[K, V]]:
        """Return the values of the ids that have one."""
        ...

    def key(self, one: K, /, *args: Any, **kwargs: Any) -> Key:
        """Return the key under which one id's value is kept."""
        ...

    def invalidate(self, one: K, /, *args: Any, **kwargs: Any) -> Awaitable[bool]:
        """Drop one id's value everywhere."""
        ...

    def refresh(self, one: K, /, *args: Any, **kwargs: Any) -> Awaitable[V]:
        """Load one id's value now and keep it."""
        ...

    def peek(self, one: K, /, *args: Any, **kwargs: Any) -> Awaitable[V | Missing]:
        """Return what the tiers hold of one id, or `MISSING`."""
        ...

    def stats(self) -> FunctionStats:
        """Return this loader's figures."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> AsyncBatch[P, K, V]: ...
    @overload
    def __get__(
        self: AsyncBatch[Concatenate[Any, Q], K, V], instance: object, owner: Any = None
    ) -> AsyncBatch[Q, K, V]: ...


class SyncBatch(Protocol[P, K, V]):
    """The same of a loader that blocks."""

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The loader itself."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> dict[K, V]:
        """Return the values of the ids that have one."""
        ...

    def key(self, one: K, /, *args: Any, **kwargs: Any) -> str:
        """Return the key under which one id's value is kept."""
        ...

    def invalidate(self, one: K, /, *args: Any, **kwargs: Any) -> bool:
        """Drop one id's value everywhere."""
        ...

    def refresh(self, one: K, /, *args: Any, **kwargs: Any) -> V:
        """Load one id's value now and keep it."""
        ...

    def peek(self, one: K, /, *args: Any, **kwargs: Any) -> V | Missing:
        """Return what the tiers hold of one id, or `MISSING`."""
        ...

    def stats(self) -> CacheStats:
        """Return this loader's figures."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> SyncBatch[P, K, V]: ...
    @overload
    def __get__(
        self: SyncBatch[Concatenate[Any, Q], K, V], instance: object, owner: Any = None
    ) -> SyncBatch[Q, K, V]: ...
