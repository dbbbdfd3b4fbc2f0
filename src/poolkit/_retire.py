"""Who is too old: how long a connection may live, and which idle ones have to go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from poolkit._session import Reason, Slot


class Ages(NamedTuple):
    """The limits; None means none. Seconds."""

    idle_timeout: float | None
    keepalive: float | None
    min_size: int


class Verdict(NamedTuple):
    """What to do now about the idle connections, and when to look again."""

    retire: list[tuple[Slot[Any], Reason]]
    ping: list[Slot[Any]]
    again: float | None


def expiry(now: float, lifetime: float, others: Iterable[float], size: int) -> float:
    """Return when a connection born now is to end.

    No two of a pool of ``size`` end closer to each other than ``lifetime / size``: of the moments
    that keep this distance from all ``others`` it is the latest, so a cohort that was born at one
    moment ends one by one. If there is none (after a resize), it is the one farthest from others.
    """
    gap = lifetime / size
    taken = [other for other in others if now - gap < other < now + lifetime + gap]
    latest = now + lifetime
    candidates = [latest, *(other - gap for other in taken), *(other + gap for other in taken)]
    candidates = [at for at in candidates if now + gap / 2 <= at <= latest]

    def distance(at: float) -> float:
        return min((abs(at - other) for other in taken), default=lifetime)

    kept = [at for at in candidates if distance(at) >= gap * (1 - 1e-9)]
    return max(kept) if kept else max(candidates, key=distance)


def judge(idle: Sequence[Slot[Any]], size: int, now: float, ages: Ages) -> Verdict:
    """Look over the idle connections, least recently used first."""
    retire: list[tuple[Slot[Any], Reason]] = []
    ping: list[Slot[Any]] = []
    later: list[float] = []
    spare = size - ages.min_size
    for slot in idle:
        if slot.expires is not None:
            if slot.expires <= now:
                retire.append((slot, Reason.LIFETIME))
                spare -= 1
                continue
            later.append(slot.expires)
        if ages.idle_timeout is not None and spare > 0:
            ends = slot.idle_since + ages.idle_timeout
            if ends <= now:
                retire.append((slot, Reason.IDLE))
                spare -= 1
                continue
            later.append(ends)
        if ages.keepalive is not None:
            due = max(slot.idle_since, slot.pinged) + ages.keepalive
            if due <= now:
                ping.append(slot)
                continue
            later.append(due)
    return Verdict(retire, ping, min(later, default=None))
