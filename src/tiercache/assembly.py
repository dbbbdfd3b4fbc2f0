"""The parts of one cache, made from its settings: what refers to what is said here alone.

They are made anew when a cache that was closed is entered again, and in the child of a fork.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tiercache._clock import Clock
from tiercache._portal import Portal
from tiercache._recovery import Recovery
from tiercache.background import Background
from tiercache.callers import Caller, TaskCaller, ThreadCaller
from tiercache.codec import Sealer
from tiercache.engine import Engine
from tiercache.entry import FOREVER
from tiercache.errors import PolicyError
from tiercache.figures import CacheFigures
from tiercache.happenings import Happenings
from tiercache.invalidation import Invalidation
from tiercache.lease import Leases
from tiercache.loading import Loading
from tiercache.local import Local
from tiercache.outbox import Outbox, OutboxTable, Relay
from tiercache.stats import LEVELS
from tiercache.telemetry.observer import Observer
from tiercache.tiers.base import RemoteTier
from tiercache.tiers.circuit import Circuit
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.memory import MemoryTier
from tiercache.urls import tier_from_url
from tiercache.writing import Writing

if TYPE_CHECKING:
    from poolkit import Pool
    from tiercache.bus.base import Bus
    from tiercache.strict import Strict
    from tiercache.tiers.strict import GuardedStrict


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a cache was given, checked."""

    memory: MemoryTier | None
    remotes: Sequence[RemoteTier]
    bus: Bus | None
    bus_timeout: float
    sealer: Sealer
    clock: Clock
    observer: Observer
    portal: Portal
    figures: CacheFigures
    happenings: Happenings
    outboxes: list[OutboxTable]
    """In the databases it was given; `Cache.watch` may add one."""


OUTBOX_TIMEOUT = 1.0
"""Seconds for one operation on an outbox that is in no tier's database."""


class Parts:
    """One incarnation of a cache."""

    def __init__(self, settings: Settings) -> None:
        clock, observer = settings.clock, settings.observer
        figures, portal = settings.figures, settings.portal
        source = secrets.token_hex(8)
        if settings.memory is not None:
            settings.memory.clear()
        local = self.local = Local(settings.memory, clock, figures.tally.evicted)
        self.task_caller = TaskCaller(local.flights)
        self.thread_caller = ThreadCaller(local.flights, portal)
        recovery = self.recovery = Recovery()
        guarded = self.guarded = [
            GuardedTier(
                remote,
                Circuit(
                    remote,
                    level=LEVELS[remote.kind],
                    clock=clock,
                    observer=observer,
                    spawn=portal.spawn,
                    on_restored=self._restored,
                ),
            )
            for remote in settings.remotes
        ]
        figures.guarded = guarded
        leases = self.leases = Leases(
            local, guarded, settings.bus, source, clock, portal, self.task_caller
        )
        vouched = FOREVER if settings.bus is None else settings.bus_timeout
        loading = Loading(
            local, guarded, settings.sealer, recovery, clock, observer, vouched, leases
        )
        invalidation = self.invalidation = Invalidation(
            source, local, guarded, settings.bus, recovery, figures.tally, clock, observer, leases
        )
        relay = self.relay = Relay(
            tables=settings.outboxes,
            source=source,
            local=local,
            tiers=guarded,
            invalidation=invalidation,
            recovery=recovery,
            deliver=settings.happenings.hear,
            portal=portal,
            caller=self.task_caller,
        )
        invalidation.keep = relay.keep
        outbox = self.outbox = Outbox(
            local,
            settings.outboxes,
            source,
            relay,
            needed=bool(guarded) or settings.bus is not None,
        )
        strict = self.strict = strict_of(
            settings, guarded, local, recovery, invalidation, leases, self.task_caller
        )
        if strict is not None:
            outbox.sealing = strict.seal
        self.engine = Engine(
            local=local,
            tiers=guarded,
            loading=loading,
            invalidation=invalidation,
            outbox=outbox,
            clock=clock,
            observer=observer,
            strict=strict,
        )
        self.writing = Writing(
            local=local,
            tiers=guarded,
            sealer=settings.sealer,
            loading=loading,
            leases=leases,
            invalidation=invalidation,
            outbox=outbox,
            clock=clock,
            at_commit=self.task_caller,
            strict=strict,
        )
        settings.happenings.connect(self.writing)
        self.background = Background(
            source=source,
            portal=portal,
            local=local,
            tiers=guarded,
            bus=settings.bus,
            bus_timeout=settings.bus_timeout,
            invalidation=invalidation,
            relay=relay,
            leases=leases,
            happenings=settings.happenings,
            clock=clock,
            observer=observer,
            caller=self.task_caller,
        )

    def _restored(self) -> None:
        self.background.restored()


def strict_of(
    settings: Settings,
    guarded: Sequence[GuardedTier],
    local: Local,
    recovery: Recovery,
    invalidation: Invalidation,
    leases: Leases,
    caller: Caller,
) -> Strict | None:
    """Return what answers strict reads; None without a tier that can."""
    if not guarded:
        return None
    from tiercache.strict import Databases, StrictLoading, strict_upon

    def loading(tier: GuardedStrict) -> StrictLoading:
        return StrictLoading(
            local,
            tier,
            settings.sealer,
            recovery,
            settings.clock,
            settings.observer,
            settings.bus_timeout,
            leases,
        )

    return strict_upon(
        guarded,
        Databases(settings.remotes, settings.outboxes),
        loading,
        name=settings.figures.name,
        local=local,
        recovery=recovery,
        invalidation=invalidation,
        clock=settings.clock,
        portal=settings.portal,
        caller=caller,
    )


def sorted_tiers(
    given: Sequence[MemoryTier | RemoteTier | str],
) -> tuple[MemoryTier | None, list[RemoteTier]]:
    """Check the tiers; return the one in memory, if any, and the others in their order."""
    tiers = [tier_from_url(tier) if isinstance(tier, str) else tier for tier in given]
    if not tiers:
        return MemoryTier(), []
    kinds: list[str] = []
    for tier in tiers:
        kind: str = "memory" if isinstance(tier, MemoryTier) else getattr(tier, "kind", "")
        if kind not in LEVELS:
            raise PolicyError(
                f"{tier!r} is not a tier; give a MemoryTier, RedisTier, DatabaseTier or a URL"
            )
        if kind in kinds:
            raise PolicyError(f"there are two {kind} tiers; a cache has one of each kind at most")
        kinds.append(kind)
    if "memory" in kinds[1:]:
        raise PolicyError(
            f"the memory tier stands behind the {kinds[0]} tier, but it is asked first: "
            "give it first"
        )
    memory = tiers[0] if isinstance(tiers[0], MemoryTier) else None
    return memory, [tier for tier in tiers if not isinstance(tier, MemoryTier)]


def chosen_outboxes(
    given: Pool | Literal["auto"] | None, remotes: Sequence[RemoteTier], name: str
) -> list[OutboxTable]:
    """Return the outboxes of the pool that was given, or of the databases of the tiers."""
    if given is None:
        return []
    if given != "auto" and not hasattr(given, "transaction"):
        raise PolicyError(f'outbox={given!r} is refused; accepted: "auto", None or a poolkit Pool')
    found: list[OutboxTable] = []
    for remote in remotes:
        if remote.kind == "database":
            from tiercache.tiers.database import DatabaseTier

            if isinstance(remote, DatabaseTier) and not remote.place.private:
                found.append(
                    OutboxTable(
                        remote.pool,
                        remote.place,
                        remote.tables,
                        name,
                        timeout=remote.timeout,
                        own_place=False,
                    )
                )
    if given != "auto" and not any(table.serves(given) for table in found):
        found += outbox_of(given, name)
    return found


def outbox_of(pool: Pool, name: str) -> list[OutboxTable]:
    """Return the outbox in a pool's database; none where nobody else could read it."""
    from tiercache._sql.names import Tables
    from tiercache._sql.places import place_of

    place = place_of(pool, OUTBOX_TIMEOUT, 1)
    if place.private:
        return []
    tables = Tables.of("tiercache")
    return [OutboxTable(pool, place, tables, name, timeout=OUTBOX_TIMEOUT, own_place=True)]


def observer_of(
    name: str,
    tracer_provider: Any,
    meter_provider: Any,
    spans: Literal["miss", "all", "off"],
    span_keys: bool,
) -> Observer:
    """Return what reports to OpenTelemetry; imported here, when a cache is made."""
    from tiercache.telemetry.otel import OtelObserver

    return OtelObserver(
        name,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        spans=spans,
        span_keys=span_keys,
    )
