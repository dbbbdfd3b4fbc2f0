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
from tiercache.callers import TaskCaller, ThreadCaller
from tiercache.codec import Sealer
from tiercache.engine import Engine
from tiercache.errors import PolicyError
from tiercache.figures import CacheFigures
from tiercache.happenings import Happenings
from tiercache.invalidation import Invalidation
from tiercache.loading import Loading
from tiercache.local import Local
from tiercache.outbox import Outbox
from tiercache.stats import LEVELS
from tiercache.telemetry.observer import Observer
from tiercache.tiers.base import RemoteTier
from tiercache.tiers.guarded import GuardedTier
from tiercache.tiers.memory import MemoryTier
from tiercache.urls import tier_from_url
from tiercache.writing import Writing

if TYPE_CHECKING:
    from tiercache.bus.base import Bus


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
        recovery = Recovery()
        guarded = self.guarded = [
            GuardedTier(
                remote,
                level=LEVELS[remote.kind],
                clock=clock,
                observer=observer,
                spawn=portal.spawn,
                on_restored=self._restored,
            )
            for remote in settings.remotes
        ]
        figures.guarded = guarded
        loading = Loading(
            local, guarded, settings.sealer, recovery, clock, observer, settings.bus_timeout
        )
        invalidation = Invalidation(
            source, local, guarded, settings.bus, recovery, figures.tally, clock, observer
        )
        outbox = Outbox(local)
        self.engine = Engine(
            local=local,
            tiers=guarded,
            loading=loading,
            invalidation=invalidation,
            outbox=outbox,
            clock=clock,
            observer=observer,
        )
        self.writing = Writing(
            local=local,
            tiers=guarded,
            sealer=settings.sealer,
            loading=loading,
            invalidation=invalidation,
            outbox=outbox,
            recovery=recovery,
            clock=clock,
            at_commit=self.task_caller,
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
            happenings=settings.happenings,
            clock=clock,
            observer=observer,
            caller=self.task_caller,
        )

    def _restored(self) -> None:
        self.background.restored()


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


def chosen_bus(
    given: Bus | Literal["auto"] | None, remotes: Sequence[RemoteTier], name: str
) -> Bus | None:
    """Return the bus that was given, or the first that a tier can carry."""
    if given is None:
        return None
    if given == "auto":
        for remote in remotes:
            if remote.kind == "redis":
                from tiercache.bus.redis import RedisBus
                from tiercache.tiers.redis import RedisTier

                assert isinstance(remote, RedisTier)
                return RedisBus(remote.server, name)
        return None
    if not hasattr(given, "publish") or not hasattr(given, "run"):
        raise PolicyError(f'bus={given!r} is refused; accepted: "auto", None or a bus')
    return given


def check_outbox(given: object) -> None:
    """Refuse what has no transactions."""
    if given is None or given == "auto" or hasattr(given, "transaction"):
        return
    raise PolicyError(f'outbox={given!r} is refused; accepted: "auto", None or a poolkit Pool')


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
