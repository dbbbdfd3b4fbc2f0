"""A remote tier behind a time limit and a circuit breaker, counted and timed.

A tier that does not answer costs its callers one timeout, then nothing until it answers again.
The engine, the outbox and the sweeper see tiers only through this.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from tiercache._breaker import Breaker
from tiercache._clock import Clock
from tiercache._deadline import Deadline
from tiercache.errors import TierError
from tiercache.stats import TierCounters
from tiercache.telemetry.observer import Observer
from tiercache.tiers.base import (
    Ask,
    Basis,
    Blocking,
    Fill,
    Filled,
    Kind,
    Leased,
    RemoteTier,
    Stored,
    SupportsSync,
)
from tiercache.tiers.gathering import Gathering

PROBE_LIMIT: Final = 0.5
"""The longest a probe waits for its answer, in seconds: with the longest delay between two probes,
a tier is back at most a second after it answers again."""

_COMPLAINTS: Final = 100
_KINDS: Final = 8
"""Kinds of leases whose requests are gathered; there are two ttls, each with and without
patience."""

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]

_Invalidation = tuple[Sequence[str], Sequence[str], Sequence[bytes]]
"""Keys, tags and events of one request."""

_T = TypeVar("_T")
_log = logging.getLogger("tiercache.tiers")


class GuardedTier:
    """A `RemoteTier` that fails fast, from any loop and thread.

    ``spawn`` runs a coroutine function on the cache's own loop and owns its task; the probe of an
    open circuit runs there. ``on_restored`` is called from it when the circuit has closed again.
    Every failure is a `TierError`; with an open circuit it is ``skipped`` and nothing was sent.
    """

    def __init__(
        self,
        tier: RemoteTier,
        *,
        level: str,
        clock: Clock,
        observer: Observer,
        spawn: Spawn,
        on_restored: Callable[[], None] | None = None,
        counters: TierCounters | None = None,
    ) -> None:
        self.tier: Final = tier
        self.level: Final = level
        self.counters: Final = TierCounters() if counters is None else counters
        self._clock = clock
        self._observer = observer
        self._spawn = spawn
        self._on_restored = on_restored
        self._breaker = Breaker()
        self._probing = False
        self._process = os.getpid()
        self._opened = False
        self._opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )
        self._complaints: set[str] = set()
        self._lock = threading.Lock()  # over what several threads set up, never held while waiting
        self._sync = tier if isinstance(tier, SupportsSync) else None
        # What is asked in one turn of a loop goes together.
        self._reads: Gathering[Ask, Stored | None] = Gathering(self._read)
        self._leases: dict[tuple[float, bool], Gathering[Ask, Basis | Leased]] = {}
        self._releases: Gathering[Basis, bool] = Gathering(self._release)
        self._fills: Gathering[Fill, Filled] = Gathering(self._fill)
        self._invalidations: Gathering[_Invalidation, None] = Gathering(self._invalidate)

    def __repr__(self) -> str:
        return f"<{self.level} {self.tier!r}, circuit {self.circuit}>"

    @property
    def origin(self) -> GuardedTier:
        """The tier that this is a view of: itself, if it is none."""
        return self

    @property
    def kind(self) -> Kind:
        """What the tier is."""
        return self.tier.kind

    @property
    def timeout(self) -> float:
        """Seconds after which an operation is given up."""
        return self.tier.timeout

    @property
    def circuit(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        return self._breaker.state.value

    @property
    def entries(self) -> None:
        """None: a server does not say how many entries are this cache's."""
        return

    @property
    def memory(self) -> None:
        """None: as `entries`."""
        return

    @property
    def blocking(self) -> Blocking | None:
        """The operations in the caller's thread: the same circuit, no time limit."""
        inner = self._sync.blocking if self._sync is not None else None
        return None if inner is None else GuardedBlocking(self, inner)

    async def open(self) -> None:
        """Open the tier now rather than at its first use."""
        await self._guard("open", _nothing)

    async def ping(self) -> None:
        """Ask the tier for a sign of life."""
        await self._guard("ping", self.tier.ping)

    async def prune(self, limit: int) -> int:
        """Delete up to ``limit`` entries whose time is over; return how many."""
        return await self._guard("prune", lambda: self.tier.prune(limit))

    async def aclose(self) -> None:
        """Close the tier and probe it no longer; a later use opens it anew."""
        self._breaker = Breaker()
        self._opened = False
        await self.tier.aclose()

    def read(self, asks: Sequence[Ask]) -> Coroutine[Any, Any, list[Stored | None]]:
        """As `Operations.read`."""
        for ask in asks:
            if ask.tags is None:  # it may take a second round trip, for which nobody shall wait
                return self._read(asks)
        self._expect("read")
        return self._reads.ask(asks)

    async def lease(
        self, asks: Sequence[Ask], ttl: float, patient: bool = False
    ) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        self._expect("lease")
        gathering = self._leases.get((ttl, patient))
        if gathering is None:
            if len(self._leases) >= _KINDS:
                return await self._lease(asks, ttl, patient)
            gathering = self._leases[ttl, patient] = Gathering(
                lambda asks: self._lease(asks, ttl, patient), about=_key
            )
        return await gathering.ask(asks)

    async def renew(self, bases: Sequence[Basis], ttl: float) -> list[bool]:
        """As `Operations.renew`."""
        return await self._guard("renew", lambda: self.tier.renew(bases, ttl))

    async def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        self._expect("release")
        return await self._releases.ask(bases)

    async def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        self._expect("fill")
        return await self._fills.ask(fills)

    async def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self._expect("invalidate")
        size = len(keys) + len(tags) + len(events)
        await self._invalidations.ask([(keys, tags, events)], size)

    async def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        await self._guard("clear", lambda: self.tier.clear(events))

    async def _read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        return self.count_read(await self._guard("read", lambda: self.tier.read(asks)))

    async def _lease(self, asks: Sequence[Ask], ttl: float, patient: bool) -> list[Basis | Leased]:
        return await self._guard("lease", lambda: self.tier.lease(asks, ttl, patient))

    async def _release(self, bases: Sequence[Basis]) -> list[bool]:
        return await self._guard("release", lambda: self.tier.release(bases))

    async def _fill(self, fills: Sequence[Fill]) -> list[Filled]:
        filled = await self._guard("fill", lambda: self.tier.fill(fills))
        self.count_written(fills)
        return filled

    async def _invalidate(self, requests: Sequence[_Invalidation]) -> list[None]:
        """Do what several ask for in one step; the events keep their order."""
        keys = list(dict.fromkeys(key for its, _, _ in requests for key in its))
        tags = list(dict.fromkeys(tag for _, its, _ in requests for tag in its))
        events = [event for _, _, its in requests for event in its]
        await self._guard("invalidate", lambda: self.tier.invalidate(keys, tags, events))
        return [None] * len(requests)

    def _expect(self, operation: str) -> None:
        """Refuse at once what would not be sent; nobody waits a turn of the loop for that."""
        if self._breaker.admit() is None:
            self.admit(operation)

    async def _guard(self, operation: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Run one operation, or refuse to."""
        ticket = self.admit(operation)
        started = self._clock.monotonic()
        try:
            async with Deadline(self.tier.timeout):
                if not self._opened:
                    await self._open(ticket, operation)
                result = await call()
        except Exception as error:
            failure = self.failed(error, operation, ticket, started)
            if failure is error:
                raise
            raise failure from error
        self.succeeded(operation, started)
        return result

    def admit(self, operation: str) -> int:
        """Return a ticket of the breaker, or raise a `TierError` that says skipped."""
        ticket = self._breaker.admit()
        if ticket is None:
            self.counters.skipped += 1
            self._keep_probing()
            raise TierError(
                f"the {self.kind} tier is left alone until it answers again ({operation})",
                tier=self.kind,
                operation=operation,
                skipped=True,
            )
        return ticket

    def now(self) -> float:
        """Return the monotonic clock's reading."""
        return self._clock.monotonic()

    def succeeded(self, operation: str, started: float) -> None:
        """Report an operation that began at ``started``."""
        seconds = self._clock.monotonic() - started
        self._observer.tier_operation(self.level, operation, seconds, None)

    def failed(self, error: Exception, operation: str, ticket: int, started: float) -> TierError:
        """Count a failure, open the circuit if the tier is away; return what to raise."""
        failure = error if isinstance(error, TierError) else self._mapped(error, operation)
        if failure.skipped:
            return failure
        now = self._clock.monotonic()
        self.counters.errors += 1
        self._observer.tier_operation(
            self.level, operation, now - started, type(failure.__cause__ or error).__name__
        )
        if failure.unavailable and self._breaker.failed(ticket, now):
            _log.warning("%s; it is left alone until it answers again", failure)
            self._keep_probing()
        return failure

    def _mapped(self, error: Exception, operation: str) -> TierError:
        if isinstance(error, TimeoutError):
            message = f"the {self.kind} tier did not answer within {self.timeout:g} s ({operation})"
        else:
            message = f"the {self.kind} tier failed ({operation}): {type(error).__name__}: {error}"
            self._complain(message, error)
        return TierError(
            message, tier=self.kind, operation=operation, unavailable=isinstance(error, OSError)
        )

    def _complain(self, message: str, error: Exception) -> None:
        """Log what no tier should raise, once per message."""
        with self._lock:
            if message in self._complaints or len(self._complaints) >= _COMPLAINTS:
                return
            self._complaints.add(message)
        _log.error("%s", message, exc_info=error)

    async def _open(self, ticket: int, operation: str) -> None:
        """Open the tier, once for all who come at the same moment."""
        with self._lock:
            lock = self._opening.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if self._breaker.admit() != ticket:
                self.admit(operation)
            if not self._opened:
                await self.tier.open()
                self._opened = True

    def _keep_probing(self) -> None:
        """See to it that somebody asks for a sign of life while the circuit is open.

        Repeated by every caller that is refused: a probe ends with the loop it runs on, and does
        not exist in a child after a fork.
        """
        with self._lock:
            if self._probing and self._process == os.getpid():
                return
            self._probing, self._process = True, os.getpid()
        try:
            self._spawn(self._probe)
        except Exception:  # noqa: BLE001 - the caller's operation is answered in any case
            self._probing = False
            _log.warning("no probe of the %s tier could be started", self.kind, exc_info=True)

    async def _probe(self) -> None:
        """Ask the tier for a sign of life until it gives one."""
        breaker = self._breaker
        try:
            while breaker is self._breaker:
                delay = breaker.wait(self._clock.monotonic())
                if delay is None:
                    return
                await asyncio.sleep(delay)
                if breaker.probing(self._clock.monotonic()) and await self._answers(breaker):
                    return
        finally:
            self._probing = False

    async def _answers(self, breaker: Breaker) -> bool:
        """Probe once."""
        try:
            async with Deadline(min(self.tier.timeout, PROBE_LIMIT)):
                if not self._opened:
                    await self.tier.open()
                await self.tier.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, the tier is not back
            _log.debug("the %s tier is still away: %s", self.kind, error)
            breaker.probe_failed(self._clock.monotonic())
            return False
        except BaseException:
            breaker.probe_failed(self._clock.monotonic())
            raise
        if breaker is self._breaker and breaker.restored():
            self._opened = True
            _log.info("the %s tier answers again", self.kind)
            if self._on_restored is not None:
                self._on_restored()
        return True

    def count_read(self, found: list[Stored | None]) -> list[Stored | None]:
        """Count hits, misses and bytes; return what was found."""
        payloads = [stored.payload for stored in found if stored is not None]
        hits, size = len(payloads), sum(map(len, payloads))
        misses = len(found) - hits
        self.counters.hits += hits
        self.counters.misses += misses
        self.counters.bytes_read += size
        return found

    def count_written(self, fills: Sequence[Fill]) -> None:
        """Count the bytes of the payloads."""
        size = sum(len(fill.payload) for fill in fills)
        self.counters.bytes_written += size


def _key(ask: Ask) -> str:
    return ask.key


async def _nothing() -> None:
    """Be what is left to do when a tier is only to be opened."""


class GuardedBlocking:
    """`Blocking` behind the circuit of its tier, without a time limit."""

    __slots__ = ("_guarded", "_inner")

    def __init__(self, guarded: GuardedTier, inner: Blocking) -> None:
        self._guarded = guarded
        self._inner = inner

    def read(self, asks: Sequence[Ask]) -> list[Stored | None]:
        """As `Operations.read`."""
        return self._guarded.count_read(self._guard("read", lambda: self._inner.read(asks)))

    def lease(self, asks: Sequence[Ask], ttl: float, patient: bool = False) -> list[Basis | Leased]:
        """As `Operations.lease`."""
        return self._guard("lease", lambda: self._inner.lease(asks, ttl, patient))

    def release(self, bases: Sequence[Basis]) -> list[bool]:
        """As `Operations.release`."""
        return self._guard("release", lambda: self._inner.release(bases))

    def fill(self, fills: Sequence[Fill]) -> list[Filled]:
        """As `Operations.fill`."""
        filled = self._guard("fill", lambda: self._inner.fill(fills))
        self._guarded.count_written(fills)
        return filled

    def invalidate(
        self, keys: Sequence[str], tags: Sequence[str], events: Sequence[bytes] = ()
    ) -> None:
        """As `Operations.invalidate`."""
        self._guard("invalidate", lambda: self._inner.invalidate(keys, tags, events))

    def clear(self, events: Sequence[bytes] = ()) -> None:
        """As `Operations.clear`."""
        self._guard("clear", lambda: self._inner.clear(events))

    def _guard(self, operation: str, call: Callable[[], _T]) -> _T:
        guarded = self._guarded
        ticket = guarded.admit(operation)
        started = guarded.now()
        try:
            result = call()
        except Exception as error:
            failure = guarded.failed(error, operation, ticket, started)
            if failure is error:
                raise
            raise failure from error
        guarded.succeeded(operation, started)
        return result
