"""The blocking face of a cache: every async name of `Cache`, for threads without a loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from tiercache.callers import drive
from tiercache.events import Scalar
from tiercache.happenings import Happenings
from tiercache.life import Life
from tiercache.operations import Operations
from tiercache.policy import Duration, PolicyOptions
from tiercache.watch import Watch, check_outside

if TYPE_CHECKING:
    from poolkit import Pool

T = TypeVar("T")


class SyncCache:
    """The same methods as `Cache`, each of which blocks the calling thread until it is done."""

    def __init__(
        self, life: Life, operations: Operations, happenings: Happenings, watch: Watch
    ) -> None:
        self._host = life
        self._operations = operations
        self._happenings = happenings
        self._watch = watch

    def open(self) -> None:
        """See `Cache.open`."""
        life = self._host
        life.reopen()
        if life.opening:
            drive(life.settle(life.thread_caller))

    def aclose(self) -> None:
        """See `Cache.aclose`; the same as `Cache.close`."""
        self._host.close()

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """See `Cache.get`."""
        return drive(self._operations.get(self._host.thread_caller, key, default, type))

    def set(
        self, key: str, value: Any, *, ttl: Duration | None = None, tags: Sequence[str] = ()
    ) -> None:
        """See `Cache.set`."""
        self.set_many({key: value}, ttl=ttl, tags=tags)

    @overload
    def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    def get_or_load(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Any:
        """See `Cache.get_or_load`; an async loader runs on the cache's own loop."""
        caller = self._host.thread_caller
        return drive(self._operations.get_or_load(caller, key, loader, ttl, tags, policy))

    def get_many(self, keys: Sequence[str], *, type: Any = Any) -> dict[str, Any]:
        """See `Cache.get_many`."""
        return drive(self._operations.get_many(self._host.thread_caller, keys, type))

    def set_many(
        self,
        items: Mapping[str, Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """See `Cache.set_many`."""
        drive(self._operations.set_many(self._host.thread_caller, items, ttl, tags))

    def invalidate(self, *keys: str, tags: Sequence[str] = ()) -> bool:
        """See `Cache.invalidate`."""
        return drive(self._operations.invalidate(self._host.thread_caller, keys, tags))

    def clear(self) -> bool:
        """See `Cache.clear`."""
        return drive(self._operations.clear(self._host.thread_caller))

    def emit(self, event: str, /, **payload: Scalar) -> bool:
        """See `Cache.emit`."""
        self._host.ready()
        return drive(self._happenings.emit(event, payload, self._host.thread_caller))

    def watch(
        self, pool: Pool, table: str, *, tags: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> None:
        """See `Cache.watch`; the pool lends its settings alone, whatever loop it belongs to."""
        check_outside("watch", table)
        self._run(lambda: self._watch.watch(pool, table, tags, keys))

    def unwatch(self, pool: Pool, table: str) -> None:
        """See `Cache.unwatch`."""
        check_outside("unwatch", table)
        self._run(lambda: self._watch.unwatch(pool, table))

    def watch_sql(
        self, pool: Pool, table: str, *, tags: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> str:
        """See `Cache.watch_sql`."""
        return self._run(lambda: self._watch.sql(pool, table, tags, keys))

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._host.settings.portal.run(work)
