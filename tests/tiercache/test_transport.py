"""Which bus a cache has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolkit import Pool
from poolkit.testing import StubDriver
from tests.tiercache.remote import FakeRemote
from tiercache import Cache, DatabaseTier, MemoryTier
from tiercache.bus.local import LocalBus
from tiercache.errors import PolicyError

Make = Callable[..., Cache]

REDIS, POSTGRES = "redis://127.0.0.1:1/0", "postgresql://nobody@127.0.0.1:1/app"


def name_of(cache: Cache) -> str | None:
    """Return what the bus calls itself, without where it is."""
    bus = cache._life.settings.bus
    return None if bus is None else type(bus).__name__


def rides(cache: Cache) -> str | None:
    """Return the kind of the tier that carries the events."""
    carrier = cache._parts.invalidation.carrier
    return None if carrier is None else carrier.kind


@pytest.mark.parametrize(
    ("tiers", "bus", "carrier"),
    [
        ([], None, None),
        (["memory://"], None, None),
        ([REDIS], "RedisBus", "redis"),
        ([POSTGRES], "PostgresBus", "database"),
        (["sqlite:///{file}"], "SqliteBus", "database"),
        (["memory://", "sqlite:///{file}"], "SqliteBus", "database"),
        ([REDIS, POSTGRES], "RedisBus", "redis"),
        ([REDIS, "sqlite:///{file}"], "RedisBus", "redis"),
        ([POSTGRES, REDIS], "PostgresBus", "database"),
        (["sqlite://"], None, None),
    ],
)
def test_the_first_tier_that_can(
    make_cache: Make, tmp_path: Path, tiers: list[str], bus: str | None, carrier: str | None
) -> None:
    """By default the first tier that others can see carries the events, with its deletions."""
    cache = make_cache(*(tier.format(file=tmp_path / "cache.db") for tier in tiers))
    assert (name_of(cache), rides(cache)) == (bus, carrier)


@pytest.mark.parametrize(
    ("tiers", "given", "bus", "carrier"),
    [
        ([REDIS], None, None, None),
        ([], REDIS, "RedisBus", None),
        ([], "postgres://nobody@127.0.0.1:1/app", "PostgresBus", None),
        ([], "sqlite:///{file}", "SqliteBus", None),
        ([POSTGRES], POSTGRES, "PostgresBus", "database"),
        ([POSTGRES], POSTGRES.replace("app", "other"), "PostgresBus", None),
        (["sqlite:///{file}"], "sqlite:///{folder}/../{base}/cache.db", "SqliteBus", "database"),
        (["sqlite:///{file}"], "sqlite:///{file}.other", "SqliteBus", None),
    ],
)
def test_a_bus_by_its_url(
    make_cache: Make,
    tmp_path: Path,
    tiers: list[str],
    given: str | None,
    bus: str | None,
    carrier: str | None,
) -> None:
    """A URL names the place; a tier in the same database publishes with its deletions."""
    places = {"file": tmp_path / "cache.db", "folder": tmp_path, "base": tmp_path.name}
    url = None if given is None else given.format(**places)
    cache = make_cache(*(tier.format(**places) for tier in tiers), bus=url)
    assert (name_of(cache), rides(cache)) == (bus, carrier)


def test_events_do_not_ride_below_another_tier(make_cache: Make) -> None:
    """A tier whose upper neighbour is emptied after it tells nobody before that is done."""
    cache = make_cache(REDIS, POSTGRES, bus=POSTGRES)
    assert (name_of(cache), rides(cache)) == ("PostgresBus", None)


def test_a_tier_of_other_tables_does_not_carry(make_cache: Make) -> None:
    """A bus by URL keeps its events in tables that begin with "tiercache"."""
    cache = make_cache(DatabaseTier(POSTGRES, prefix="mine"), bus=POSTGRES)
    assert (name_of(cache), rides(cache)) == ("PostgresBus", None)


def test_pools(make_cache: Make, sqlite_path: Path) -> None:
    """A pool does as a bus, and as the outbox of a cache that has no remote tier."""
    postgres, sqlite = Pool(POSTGRES, min_size=0), Pool(f"sqlite:///{sqlite_path}")
    assert name_of(make_cache(bus=postgres)) == "PostgresBus"
    assert name_of(make_cache(bus=sqlite)) == "SqliteBus"
    assert name_of(make_cache(outbox=postgres)) == "PostgresBus"
    assert name_of(make_cache(outbox=sqlite)) == "SqliteBus"
    assert name_of(make_cache(outbox=Pool("sqlite://"))) is None
    assert name_of(make_cache(REDIS, outbox=postgres)) == "RedisBus"
    assert name_of(make_cache(outbox=postgres, bus=None)) is None
    assert rides(make_cache(DatabaseTier(postgres), bus=postgres)) == "database"


def test_a_bus_of_ones_own(make_cache: Make) -> None:
    """Whatever can publish and run is taken as it is."""
    bus = LocalBus()
    cache = make_cache(MemoryTier(), bus=bus)
    assert cache._life.settings.bus is bus


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (42, "bus=42"),
        ("redis", "bus='redis' is refused"),
        ("postgersql://localhost/app", "postgersql"),
        ("memory://", "kept in memory"),
        ("sqlite://", "kept in memory"),
        (Pool("sqlite://"), "kept in memory"),
        (Pool(StubDriver()), "cannot be kept in"),
    ],
)
def test_what_cannot_be_a_bus(given: Any, names: str) -> None:
    """The refusal names what was given and what would do."""
    with pytest.raises(PolicyError) as caught:
        Cache(MemoryTier(), bus=given)
    assert names in str(caught.value)
    assert "sqlite:///cache.db" in str(caught.value)


def test_a_password_is_not_shown() -> None:
    """The refusal of a URL keeps its secret."""
    with pytest.raises(PolicyError) as caught:
        Cache(bus="postgersql://me:hidden@localhost/app")
    assert "hidden" not in str(caught.value)


def test_tiers_of_other_makers_carry_nothing(make_cache: Make) -> None:
    """A tier that only says that it is a database, or a Redis, is not asked for a bus."""
    assert name_of(make_cache(FakeRemote("database"), FakeRemote("redis"))) is None
