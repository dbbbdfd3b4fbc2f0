"""A remote tier behind a time limit and a circuit breaker, from any loop and thread.

A tier that does not answer costs its callers one timeout, then nothing until it answers again: who
comes while the circuit is open is refused at once, and a probe asks for a sign of life meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from tiercache._breaker import Breaker
from tiercache._clock import Clock
from tiercache._deadline import Deadline
from tiercache.errors import TierError
from tiercache.stats import TierCounters
from tiercache.telemetry.observer import Observer
from tiercache.tiers.base import RemoteTier

PROBE_LIMIT: Final = 0.5
"""The longest a probe waits for its answer, in seconds: with the longest delay between two probes,
a tier is back at most a second after it answers again."""

_COMPLAINTS: Final = 100

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]

_T = TypeVar("_T")
_log = logging.getLogger("tiercache.tiers")


class Circuit:
    """Carries the operations of one tier, or refuses to.

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
        self.level: Final = level
        self.counters: Final = TierCounters() if counters is None else counters
        self._tier = tier
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

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``."""
        return self._breaker.state.value

    def reset(self) -> None:
        """Begin anew, with nothing opened and nobody probing."""
        self._breaker = Breaker()
        self._opened = False

    def expect(self, operation: str) -> None:
        """Refuse at once what would not be sent; nobody waits a turn of the loop for that."""
        if self._breaker.admit() is None:
            self._admit(operation)

    async def carry(self, operation: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Run one operation within the time limit, or refuse to."""
        ticket = self._admit(operation)
        started = self._clock.monotonic()
        try:
            async with Deadline(self._tier.timeout):
                if not self._opened:
                    await self._open(ticket, operation)
                result = await call()
        except Exception as error:
            failure = self._failed(error, operation, ticket, started)
            if failure is error:
                raise
            raise failure from error
        self._succeeded(operation, started)
        return result

    def carry_blocking(self, operation: str, call: Callable[[], _T]) -> _T:
        """Run one operation in this thread, without a time limit, or refuse to."""
        ticket = self._admit(operation)
        started = self._clock.monotonic()
        try:
            result = call()
        except Exception as error:
            failure = self._failed(error, operation, ticket, started)
            if failure is error:
                raise
            raise failure from error
        self._succeeded(operation, started)
        return result

    def _admit(self, operation: str) -> int:
        """Return a ticket of the breaker, or raise a `TierError` that says skipped."""
        ticket = self._breaker.admit()
        if ticket is None:
            self.counters.skipped += 1
            self._keep_probing()
            raise TierError(
                f"the {self._tier.kind} tier is left alone until it answers again ({operation})",
                tier=self._tier.kind,
                operation=operation,
                skipped=True,
            )
        return ticket

    def _succeeded(self, operation: str, started: float) -> None:
        """Report an operation that began at ``started``."""
        seconds = self._clock.monotonic() - started
        self._observer.tier_operation(self.level, operation, seconds, None)

    def _failed(self, error: Exception, operation: str, ticket: int, started: float) -> TierError:
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
        kind = self._tier.kind
        if isinstance(error, TimeoutError):
            message = f"the {kind} tier did not answer within {self._tier.timeout:g} s"
            message += f" ({operation})"
        else:
            message = f"the {kind} tier failed ({operation}): {type(error).__name__}: {error}"
            self._complain(message, error)
        unavailable = isinstance(error, OSError)
        return TierError(message, tier=kind, operation=operation, unavailable=unavailable)

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
                self._admit(operation)
            if not self._opened:
                await self._tier.open()
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
            _log.warning("no probe of the %s tier could be started", self._tier.kind, exc_info=True)

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
            async with Deadline(min(self._tier.timeout, PROBE_LIMIT)):
                if not self._opened:
                    await self._tier.open()
                await self._tier.ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, the tier is not back
            _log.debug("the %s tier is still away: %s", self._tier.kind, error)
            breaker.probe_failed(self._clock.monotonic())
            return False
        except BaseException:
            breaker.probe_failed(self._clock.monotonic())
            raise
        if breaker is self._breaker and breaker.restored():
            self._opened = True
            _log.info("the %s tier answers again", self._tier.kind)
            if self._on_restored is not None:
                self._on_restored()
        return True


async def open_only() -> None:
    """Be what is left to do when a tier is only to be opened."""
