"""From the arguments of a decorated function to a `Call` for the engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, get_args

from tiercache._flight import Outcome
from tiercache._hot import Hot
from tiercache.callers import Caller, drive
from tiercache.codec import return_type
from tiercache.engine import Engine
from tiercache.entry import MISSING, Slot
from tiercache.loading import Call, KeyCall, Loader
from tiercache.naming import Naming
from tiercache.policy import CachePolicy, PolicyOptions
from tiercache.stats import Counters
from tiercache.writing import Writing


class Parts(Protocol):
    """A cache as it is at present."""

    @property
    def engine(self) -> Engine:
        """Answers the calls."""
        ...

    @property
    def task_caller(self) -> Caller:
        """How a task reaches it."""
        ...

    @property
    def thread_caller(self) -> Caller:
        """How a thread reaches it."""
        ...


class Host(Protocol):
    """What a decorated function needs of its cache."""

    def present(self) -> Parts:
        """Return its parts; in the child of a fork its own."""
        ...

    @property
    def engine(self) -> Engine:
        """Answers the calls."""
        ...

    @property
    def writing(self) -> Writing:
        """Changes it on purpose."""
        ...

    @property
    def policy(self) -> CachePolicy:
        """The defaults of its functions."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes see its keys."""
        ...

    @property
    def task_caller(self) -> Caller:
        """How a task reaches it."""
        ...

    @property
    def thread_caller(self) -> Caller:
        """How a thread reaches it."""
        ...

    def adopt(self, owner: object, counters: Counters) -> None:
        """Count a function's figures in, for as long as the owner lives and after."""
        ...

    @property
    def opening(self) -> bool:
        """Whether it was opened just now and its bus has not answered yet."""
        ...

    async def settle(self, caller: Caller) -> None:
        """Wait for the bus, no longer than its tier's timeout after opening."""
        ...

    def ready(self) -> None:
        """Open on first use; `CacheClosed` afterwards."""
        ...

    def connect(self, hot: Hot, counters: Counters, policy: CachePolicy) -> None:
        """Point a compiled function at this cache."""
        ...


class Definition:
    """A decorated function: its signature, its key and tags, its options; no cache yet."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        ttl: Any,
        key: str | None,
        tags: Sequence[str],
        ignore: Collection[str],
        options: PolicyOptions,
        host: Callable[[], Host],
        many: bool = False,
    ) -> None:
        self.function = function
        self.naming = naming = Naming(function, key=key, tags=tags, ignore=ignore, many=many)
        self.shown = naming.identity.replace(":", ".")  # as `code.function.name` spells it
        self.is_async = inspect.iscoroutinefunction(function)
        self.ttl = ttl
        self.options = options
        self.counters = Counters()
        self._past = Counters()
        self._cache: Host | None = None
        self._host = host
        self._engine: Engine | None = None
        self.names_slots = False
        """Whether its hot path looks into memory by itself."""
        self._looks_closely = True
        """Whether its reads have to ask for more than a value that is there, or to be loaded."""
        self._policy = CachePolicy()
        self._type: Any = MISSING
        self.hot = Hot(
            function,
            naming.signature,
            () if many else naming.fields(),
            self._slow_async if self.is_async else self._slow,
            is_async=self.is_async,
            tags=naming.tags_at_most,
        )

    # -- the cache ----------------------------------------------------------------------------

    def host(self) -> Host:
        """Return the cache, after making this function part of it if it has changed."""
        host = self._host()
        host.ready()
        if host.engine is not self._engine:
            self.join(host)
        return host

    def join(self, host: Host | None = None) -> None:
        """Become part of the cache: merge its policy, check that its tiers can take the key."""
        if host is None:
            host = self._host()
        self.naming.check(shared=host.shared)
        if self._cache is not None and self._cache is not host:
            self._past.add(self.counters)  # those stay with the cache they were counted for
            self.counters = Counters()
        self._cache = host
        self._policy = host.engine.grant(host.policy.merged(ttl=self.ttl, **self.options))
        self._engine = host.engine
        self._looks_closely = host.engine.looks_closely(self._policy)
        self.names_slots = host.engine.names_slots
        host.adopt(self, self.counters)
        host.connect(self.hot, self.counters, self._policy)

    def leave(self) -> None:
        """Answer nothing from memory until the next call has looked up its cache."""
        self._engine = None
        self.hot.forget()

    @property
    def policy(self) -> CachePolicy:
        """Its options, merged with those of the cache it belongs to."""
        return self._policy

    def figures(self) -> Counters:
        """Return what was counted for it, by whatever cache it belonged to."""
        return Counters.total((self._past, self.counters))

    # -- calls --------------------------------------------------------------------------------

    async def _slow_async(self, arguments: dict[str, Any]) -> Any:
        host = self.host()
        parts = host.present()
        engine, caller = parts.engine, parts.task_caller
        if host.opening:
            await host.settle(caller)
        call = self.call(arguments, host)
        flight = None
        if not self._looks_closely and not engine.is_disturbed():
            flight = engine.local.lead(call.key, call.tags)
        if flight is None:
            return await engine.read(call, caller)
        direct = engine.direct
        if direct is None:
            found = await engine.glimpse(call, flight, caller)
            if isinstance(found, Outcome):
                return _hit(call, found)
            return await engine.follow(call, flight, found, caller)
        assert flight.load is not None
        caller.launch(flight.load, direct.carry(flight, call), behind=False)
        await caller.wait(flight, None)
        outcome = engine.outcome(flight)
        if outcome is None:
            return await engine.read(call, caller)
        call.counters.misses += 1
        return outcome.value

    def _slow(self, arguments: dict[str, Any]) -> Any:
        host = self.host()
        parts = host.present()
        engine, caller = parts.engine, parts.thread_caller
        if host.opening:
            drive(host.settle(caller))
        call = self.call(arguments, host)
        flight = None
        if not self._looks_closely and not engine.is_disturbed():
            flight = engine.local.lead(call.key, call.tags)
        if flight is None:
            return drive(engine.read(call, caller))
        direct = engine.direct
        if direct is None:
            found = drive(engine.glimpse(call, flight, caller))
            if isinstance(found, Outcome):
                return _hit(call, found)
            return drive(engine.follow(call, flight, found, caller))
        return direct.run(flight, call, self._awaited)

    def _awaited(self, value: Any) -> Any:
        """Wait in this thread for what a function that is not async has returned."""
        return drive(self._host().thread_caller.call(lambda: value))

    def call(self, arguments: dict[str, Any], host: Host) -> Call:
        """Return the call with these bound arguments."""
        naming = self.naming
        key = naming.key(arguments, self._policy.version, shared=host.shared)
        return FunctionCall(self, key, naming.tags(arguments), arguments)

    def calls(
        self, arguments: dict[str, Any], host: Host, caller: Caller
    ) -> tuple[list[Any], list[Call], Loader]:
        """Return the ids of a batch, a call for each, and what loads some of them."""
        naming, version, shared = self.naming, self._policy.version, host.shared
        ids = list(dict.fromkeys(arguments[naming.ids]))
        calls: list[Call] = []
        for one in ids:
            single = naming.of_one(arguments, one)
            calls.append(
                KeyCall(
                    naming.key(single, version, shared=shared),
                    naming.tags(single),
                    self._policy,
                    self.counters,
                    loader=partial(self._load_one, arguments, one),
                    type_=self.type,
                    function=self.shown,
                )
            )
        ids_of = dict(zip(map(id, calls), ids, strict=True))

        async def load(wanted: Sequence[Call]) -> list[object]:
            asked = [ids_of[id(call)] for call in wanted]
            found = await caller.call(self.hot.invoke, {**arguments, naming.ids: asked})
            return self._picked(found, asked)

        return ids, calls, load

    def one(self, arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
        """Bind a call; for a batch function, one with a single id where the ids stand."""
        positional, keywords = self.naming.as_batch(arguments, keywords)
        return self.hot.bound(*positional, **keywords)

    def single(self, arguments: dict[str, Any], host: Host) -> Call:
        """Return the call of `one`'s arguments, with a loader of its own."""
        if not self.naming.many:
            return self.call(arguments, host)
        _, (call,), _ = self.calls(arguments, host, host.task_caller)
        return call

    def _load_one(self, arguments: dict[str, Any], one: Any) -> Any:
        """Call the batch loader for one id; an awaitable where it is async."""
        found = self.hot.invoke({**arguments, self.naming.ids: [one]})
        if not self.is_async:
            return self._picked(found, [one])[0]

        async def pick() -> Any:
            return self._picked(await found, [one])[0]

        return pick()

    def _picked(self, found: Any, asked: Sequence[Any]) -> list[Any]:
        """Return the values of the ids that were asked for, in their order."""
        if not isinstance(found, Mapping):
            raise TypeError(
                f"{self.naming.identity} returned {type(found).__name__}: the loader of "
                "cached_many returns a dict {id: value}"
            )
        return [found.get(one, MISSING) for one in asked]

    def type(self) -> Any:
        """Return what the codec builds: the return annotation, resolved at first need."""
        if self._type is MISSING:
            annotation = return_type(self.function)
            if self.naming.many:
                annotation = (*get_args(annotation), Any, Any)[1]
            self._type = annotation
        return self._type


class FunctionCall(Call):
    """The call of a decorated function with these bound arguments."""

    __slots__ = ("_alias", "_arguments", "_definition", "_table")

    def __init__(
        self,
        definition: Definition,
        key: str,
        tags: tuple[str, ...],
        arguments: dict[str, Any],
    ) -> None:
        self.key = key
        self.tags = tags
        self.policy = definition.policy
        self.counters = definition.counters
        self._definition = definition
        self._arguments = arguments
        # As they are now: what is loaded may change its arguments, and the function its cache.
        self._table = definition.hot.table
        self._alias = definition.hot.alias(arguments) if definition.names_slots else None

    @property
    def function(self) -> str | None:
        """The name of the function."""
        return self._definition.shown

    def loader(self) -> Any:
        """Call the function itself."""
        return self._definition.hot.invoke(self._arguments)

    def type(self) -> Any:
        """Return what the codec builds."""
        return self._definition.type()

    def names(self, slot: Slot) -> bool:
        """Whether the function's hot path does not find the slot yet, and could."""
        return self._alias is not None and slot.table is not self._table

    def name_slot(self, slot: Slot) -> None:
        """Let the function's hot path find the slot; called under the cache's lock."""
        if self._alias is not None:
            if slot.table is None:
                slot.name(self._table, self._alias)
            elif slot.table is not self._table:
                slot.share(self._table, self._alias)


def _hit(call: Call, outcome: Outcome) -> object:
    assert outcome.level is not None
    call.counters.hit(outcome.level)
    return outcome.value
