"""Which bus a cache has: the one it was given, or the first that one of its tiers can carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from tiercache.errors import PolicyError
from tiercache.tiers.base import RemoteTier
from tiercache.urls import tier_from_url

if TYPE_CHECKING:
    from poolkit import Pool
    from tiercache.bus.base import Bus
    from tiercache.tiers.database import DatabaseTier

_ACCEPTED = (
    '"auto", None, a poolkit Pool, a URL (redis://localhost:6379/0, postgresql://localhost/app, '
    "sqlite:///cache.db) or a bus"
)


def chosen_bus(
    given: Bus | Pool | str | None, remotes: Sequence[RemoteTier], outbox: object, name: str
) -> Bus | None:
    """Return the bus for a cache of this name; `PolicyError` for what cannot be one.

    ``"auto"`` is the first of the tiers that can carry it; without any remote tier, the database of
    the pool that was given as ``outbox``.
    """
    if given is None:
        return None
    if given == "auto":
        carriers: list[Any] = list(remotes)
        if not carriers and _is_pool(outbox):
            carriers = [_tier_of(cast("Pool", outbox))]
        buses = (_carried_by(carrier, remotes, name) for carrier in carriers)
        return next((bus for bus in buses if bus is not None), None)
    if _is_pool(given) or (isinstance(given, str) and "://" in given):
        bus = _carried_by(_tier_of(cast("Pool | str", given)), remotes, name)
        if bus is None:
            raise PolicyError(
                f"bus={given!r} is refused: no other process can see what is kept in memory. "
                f"Accepted: {_ACCEPTED}"
            )
        return bus
    if not hasattr(given, "publish") or not hasattr(given, "run"):
        raise PolicyError(f"bus={given!r} is refused; accepted: {_ACCEPTED}")
    return cast("Bus", given)


def _is_pool(given: object) -> bool:
    return hasattr(given, "driver") and hasattr(given, "sibling")


def _tier_of(given: Pool | str) -> object:
    """Return a tier in the place that is meant, of which only the place is used."""
    try:
        if isinstance(given, str):
            return tier_from_url(given)
        from tiercache.tiers.database import DatabaseTier

        return DatabaseTier(given)
    except PolicyError as error:
        raise PolicyError(f"the bus is refused: {error}; accepted: {_ACCEPTED}") from error


def _carried_by(carrier: object, remotes: Sequence[RemoteTier], name: str) -> Bus | None:
    """Return a bus where this tier is; None if it cannot carry one."""
    kind = getattr(carrier, "kind", "memory")
    if kind == "redis":
        from tiercache.bus.redis import RedisBus
        from tiercache.tiers.redis import RedisTier

        return RedisBus(carrier.server, name) if isinstance(carrier, RedisTier) else None
    if kind == "database":
        from tiercache.tiers.database import DatabaseTier

        if isinstance(carrier, DatabaseTier) and not carrier.place.private:
            return _in_database(_own(carrier, remotes), remotes, name)
    return None


def _own(carrier: DatabaseTier, remotes: Sequence[RemoteTier]) -> DatabaseTier:
    """Return the cache's own tier in that database if there is one: its connections will do."""
    for remote in remotes:
        if isinstance(remote, type(carrier)) and _location(remote) == _location(carrier):
            return remote
    return carrier


def _location(tier: DatabaseTier) -> tuple[object, ...]:
    return tier.place.system, tier.place.address, tier.tables


def _in_database(tier: DatabaseTier, remotes: Sequence[RemoteTier], name: str) -> Bus:
    from tiercache._sql.places import PostgresPlace, SqlitePlace
    from tiercache.bus.postgres import PostgresBus
    from tiercache.bus.sqlite import SqliteBus

    place = tier.place
    bus: PostgresBus | SqliteBus
    if isinstance(place, PostgresPlace):
        bus = PostgresBus(place, tier.tables, name, timeout=tier.timeout)
    else:
        assert isinstance(place, SqlitePlace)
        bus = SqliteBus(place, tier.tables, name, timeout=tier.timeout)
    # Only the tier that is emptied last may tell of it: the others would be read again from those
    # that were not emptied yet.
    if remotes and remotes[0] is tier:
        bus.ride(tier)
    return bus
