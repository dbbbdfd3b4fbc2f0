"""`Cache`: the public object. It only composes; what it promises is kept by the modules below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from tiercache._clock import Clock, SystemClock
from tiercache._portal import Portal
from tiercache.assembly import (
    Parts,
    Settings,
    chosen_outboxes,
    observer_of,
    sorted_tiers,
)
from tiercache.calls import Host
from tiercache.codec import Sealer
from tiercache.decorators import Cached, CachedMany, cached, cached_many, invalidates
from tiercache.engine import bypassed
from tiercache.errors import PolicyError
from tiercache.figures import CacheFigures
from tiercache.happenings import Happenings
from tiercache.life import Life
from tiercache.operations import Operations
from tiercache.policy import CachePolicy, Duration, PolicyOptions, parse_duration
from tiercache.stats import CacheStats
from tiercache.sync import SyncCache
from tiercache.tiers.base import RemoteTier
from tiercache.tiers.memory import MemoryTier
from tiercache.transport import chosen_bus
from tiercache.watch import Watch

if TYPE_CHECKING:
    from poolkit import Pool
    from tiercache.bus.base import Bus
    from tiercache.codec.base import Codec
    from tiercache.events import Scalar

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

BUS_TIMEOUT = 3.0
"""Seconds for which L1 serves what this process loaded itself while the bus is silent."""


class Cache:
    """A cache of up to three tiers for functions, sync and async.

    ``tiers`` are asked in their order: at most one `MemoryTier`, first, and after it a `RedisTier`
    and a `DatabaseTier`, as objects or URLs; none at all means one `MemoryTier`. ``name`` keeps
    the entries of two caches on one server apart, and names the cache in telemetry.

    - ``bus``: how processes hear of invalidations; ``"auto"`` takes the first tier that can carry
      it (Redis, PostgreSQL, a SQLite file), or the database of ``outbox`` if there is no such tier.
      A URL or a `poolkit.Pool` names another place, None goes without.
    - ``outbox``: the `poolkit.Pool` whose transactions carry invalidations; ``"auto"`` takes those
      of the tiers.
    - ``policy``: the defaults of every function.
    - ``codec`` (``"safe"``, ``"pickle"``, a codec, or a whole `tiercache.codec.Sealer`) and
      ``secret`` (text or bytes, at least 16 of them): how values are written to shared tiers, and
      the key with which they are signed.
    - ``clock``, ``tracer_provider``, ``meter_provider``: for tests, and for applications with
      several of them.

    - ``spans``: which requests get a span: those that L1 missed (``"miss"``), all of them (each hit
      then costs one), or none (``"off"``); ``span_keys`` puts keys on them.
    - ``bus_timeout``: how long, in seconds, L1 serves an entry without a word from the bus.

    Raises `PolicyError` for settings that cannot be meant. Opens at first use, or with
    ``with cache:`` / ``async with cache:``, which also closes it; other use after that raises
    `CacheClosed`.
    """

    def __init__(
        self,
        *tiers: MemoryTier | RemoteTier | str,
        name: str = "default",
        bus: Bus | Pool | str | None = "auto",
        outbox: Pool | Literal["auto"] | None = "auto",
        policy: CachePolicy | None = None,
        codec: Codec | Sealer | str | None = None,
        secret: str | bytes | None = None,
        clock: Clock | None = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        spans: Literal["miss", "all", "off"] = "miss",
        span_keys: bool = False,
        bus_timeout: float = BUS_TIMEOUT,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise PolicyError(f"name={name!r} is refused; accepted: a text that is not empty")
        if policy is not None and not isinstance(policy, CachePolicy):
            raise PolicyError(f"policy={policy!r} is refused; accepted: CachePolicy(...)")
        memory, remotes = sorted_tiers(tiers)
        for remote in remotes:
            remote.bind(name)
        chosen = chosen_bus(bus, remotes, outbox, name)
        settings = Settings(
            memory=memory,
            remotes=remotes,
            bus=chosen,
            bus_timeout=parse_duration(bus_timeout, "bus_timeout", never=False),
            sealer=_sealer(codec, secret),
            clock=SystemClock() if clock is None else clock,
            observer=observer_of(name, tracer_provider, meter_provider, spans, span_keys),
            portal=Portal(name),
            figures=CacheFigures(name, memory, None if chosen is None else self._bus_connected),
            happenings=Happenings(),
            outboxes=chosen_outboxes(outbox, remotes, name),
        )
        self._figures = settings.figures
        self._happenings = settings.happenings
        self._life = Life(settings, CachePolicy() if policy is None else policy)
        self._operations = Operations(self._life, self._figures.own)
        self._watch = Watch(self._life)
        self._sync = SyncCache(self._life, self._operations, self._happenings, self._watch)
        settings.observer.watch(self._figures)

    # -- decorating ---------------------------------------------------------------------------

    def cached(
        self,
        ttl: Duration | None = None,
        *,
        key: str | None = None,
        tags: Sequence[str] = (),
        ignore: Collection[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Cached:
        """Cache the results of a function or method, sync or async.

        ``ttl`` is how long a result is fresh (seconds, a `timedelta`, text such as ``"1h30m"``, or
        ``"never"``); None takes the cache's. ``key`` and ``tags`` are templates over the
        parameters (``"user:{user_id}"``); without ``key`` the key is made of the function's name
        and its arguments, but for those in ``ignore``. ``policy`` are the options of `CachePolicy`.

        Raises `PolicyError` and `KeyTemplateError` for what cannot be meant, TypeError for a
        generator function.
        """
        return cached(
            lambda: self._life, ttl, key=key, tags=tags, ignore=ignore, options=policy, now=True
        )

    def cached_many(
        self,
        ttl: Duration | None = None,
        *,
        key: str,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> CachedMany:
        """Cache the results of a batch loader ``(ids, *args) -> dict[id, value]``, one by one.

        The loader is called once, with those ids that no tier has and nobody is loading; an id that
        is missing in what it returns is not cached. In templates ``{id}`` is one id (so is the
        singular of the parameter: ``{user_id}`` for ``user_ids``).
        """
        return cached_many(lambda: self._life, ttl, key=key, tags=tags, options=policy, now=True)

    def invalidates(
        self, *, tags: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> Callable[[F], F]:
        """Invalidate after the decorated function has succeeded.

        Templates see its arguments, and ``{result.id}`` is its result. Within an open poolkit
        transaction the invalidation waits for the commit.
        """
        return invalidates(lambda: self._life, tags=tags, keys=keys)

    # -- by key -------------------------------------------------------------------------------

    async def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """Return a key's value, or the default; ``type`` says what to build from shared tiers."""
        return await self._operations.get(self._life.task_caller, key, default, type)

    async def get_many(self, keys: Sequence[str], *, type: Any = Any) -> dict[str, Any]:
        """Return the values of those keys that are there."""
        return await self._operations.get_many(self._life.task_caller, keys, type)

    async def set(
        self, key: str, value: Any, *, ttl: Duration | None = None, tags: Sequence[str] = ()
    ) -> None:
        """Store a value in every tier, and empty its key in the L1 of other processes.

        Inside a poolkit transaction of this task it waits for the commit. Raises `CodecError` for a
        value that a shared tier could not give back as it is.
        """
        await self.set_many({key: value}, ttl=ttl, tags=tags)

    async def set_many(
        self,
        items: Mapping[str, Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Store several values, as `set` does one."""
        await self._operations.set_many(self._life.task_caller, items, ttl, tags)

    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], T],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> T: ...
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Any],
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        **policy: Unpack[PolicyOptions],
    ) -> Any:
        """Return the value of a key, calling the loader (sync or async) if no tier has it.

        Callers who ask at the same time share one call. The loader's own error is raised as it is.
        """
        caller = self._life.task_caller
        return await self._operations.get_or_load(caller, key, loader, ttl, tags, policy)

    async def invalidate(self, *keys: str, tags: Sequence[str] = ()) -> bool:
        """Drop keys, and all that carries one of the tags, in every tier and process.

        When it returns, this process reads no older value, and nobody does from a tier that was
        reached. True when all were; else the rest is finished as soon as the tier answers again.
        Where somebody reads strictly under this cache's name, `TierError` stands for False.
        Inside a poolkit transaction of this task it takes effect if and when that commits.
        """
        return await self._operations.invalidate(self._life.task_caller, keys, tags)

    async def clear(self) -> bool:
        """Drop everything that is cached under this cache's name, at once, in every process."""
        return await self._operations.clear(self._life.task_caller)

    # -- events -------------------------------------------------------------------------------

    def on(self, event: str, *, tags: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
        """Invalidate these whenever the application event is emitted, by any process.

        Templates are filled from the event's payload.
        """
        self._happenings.on(event, tags, keys)

    async def emit(self, event: str, /, **payload: Scalar) -> bool:
        """Tell every process of an application event; its rules (`on`) have been carried out then.

        The payload holds str, int, float, bool and None. Inside a poolkit transaction of this task
        it waits for the commit. True when every tier and the bus were reached.
        """
        self._life.ready()
        return await self._happenings.emit(event, payload, self._life.task_caller)

    def subscribe(self, event: str, handler: Callable[..., object]) -> Callable[[], None]:
        """Call the handler, sync or async, for every such event of any process.

        It gets the payload as keyword arguments; one that does not take those, but one argument,
        gets the payload as a dict. Returns the function that ends the subscription.
        """
        if self._life.settings.bus is not None:
            self._life.ready()
        return self._happenings.subscribe(event, handler)

    async def watch(
        self, pool: Pool, table: str, *, tags: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> None:
        """Invalidate when rows of a table change, whoever changes them, in every process.

        Templates are filled from the columns of each row that is inserted, updated (as it was and
        as it is) or deleted; TRUNCATE clears the cache. Triggers write it down in the transaction
        that changes the row, so it happens if and when that commits.

        To be called at start-up, by every process: what is in place is left alone without a lock,
        other templates replace those of the call before. ``table`` is written as in SQL
        (``"app.users"``, ``'"Users"'``). Not inside a transaction.

        Raises `KeyTemplateError` for templates and columns that cannot be meant, `PolicyError` for
        what is no table, `TierError` when the database refuses or cannot be reached; `watch_sql`
        is the way out for a role without the rights.
        """
        await self._watch.watch(pool, table, tags, keys)

    async def unwatch(self, pool: Pool, table: str) -> None:
        """Take away what `watch` has put in place, for all processes; raises as `watch` does."""
        await self._watch.unwatch(pool, table)

    async def watch_sql(
        self, pool: Pool, table: str, *, tags: Sequence[str] = (), keys: Sequence[str] = ()
    ) -> str:
        """Return the statements that `watch` would run, for somebody with the rights to run.

        Nothing is changed. Where they have been run, `watch` with the same templates finds all in
        place and needs no right but to read the catalog.
        """
        return await self._watch.sql(pool, table, tags, keys)

    # -- the rest -----------------------------------------------------------------------------

    @contextmanager
    def bypass(self, everywhere: bool = False) -> Iterator[None]:
        """Let calls go to the function: nothing is read or written.

        For this context (task or thread), or with ``everywhere`` for the whole process, which is
        what tests want. Invalidations still take place.
        """
        parts = self._life.present()
        engine, local = parts.engine, parts.local
        with local.lock:
            local.gate.hold()
            engine.bypassed_everywhere += everywhere
        token = None if everywhere else bypassed.set(bypassed.get() | {id(engine)})
        try:
            yield
        finally:
            with local.lock:
                local.gate.let_go()
                engine.bypassed_everywhere -= everywhere
            if token is not None:
                bypassed.reset(token)

    @property
    def sync(self) -> SyncCache:
        """The blocking face: every async name of the cache, for threads."""
        return self._sync

    def stats(self) -> CacheStats:
        """Return one snapshot of what happened so far."""
        return CacheStats.of(self._figures.counters(), tally=self._figures.tally)

    @property
    def name(self) -> str:
        """Its name, in keys and telemetry."""
        return self._figures.name

    @property
    def policy(self) -> CachePolicy:
        """The defaults of its functions."""
        return self._life.policy

    @property
    def host(self) -> Host:
        """What decorated functions hold on to; not for applications."""
        return self._life

    @property
    def _parts(self) -> Parts:
        return self._life.parts

    def _bus_connected(self) -> bool:
        return self._parts.background.bus_connected

    def __repr__(self) -> str:
        settings = self._life.settings
        memory = [] if settings.memory is None else [settings.memory]
        tiers = ", ".join(map(repr, [*memory, *settings.remotes]))
        return f"<Cache {self.name!r}: {tiers}; {self._life.state}>"

    # -- life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open now rather than at first use; a tier that does not answer opens later."""
        await self._life.open()

    async def aclose(self) -> None:
        """Close: loads under way are cancelled, connections and the cache's own loop are closed.

        Tiers made from URLs are closed with it; a pool that was passed in belongs to its owner.
        """
        await self._life.aclose()

    def close(self) -> None:
        """Close from a thread; see `aclose`."""
        self._life.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._sync.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _sealer(codec: Codec | Sealer | str | None, secret: str | bytes | None) -> Sealer:
    if not isinstance(codec, Sealer):
        return Sealer(codec=codec, secret=secret)
    if secret is not None:
        raise PolicyError(
            "secret= is given beside a Sealer, which has its own; give it to that one"
        )
    return codec
