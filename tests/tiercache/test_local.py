"""`Local`: entries and flights change in one step, so that an invalidation wins against a load."""

import pytest

from tiercache._flight import Flight, Load, Outcome
from tiercache.entry import FOREVER, Slot
from tiercache.local import Local
from tiercache.testing import FakeClock
from tiercache.tiers.memory import MemoryTier


@pytest.fixture
def local(clock: FakeClock) -> Local:
    """An L1 with its flights."""
    return Local(MemoryTier(), clock, lambda reason: None)


def slot(key: str, value: object = "value", *tags: str, until: float = FOREVER) -> Slot:
    """Return an entry of L1."""
    return Slot(
        key, value, created=0, refresh_at=FOREVER, expires=until, stale_until=until, tags=tags
    )


def enter(local: Local, key: str, *tags: str, join: bool = True) -> tuple[Flight, bool]:
    """Ask for a key as a caller does, and put a load on a flight that is new."""
    entered = local.enter(key, tags, lambda found: True, lambda load: join)
    assert not isinstance(entered, Slot)
    if entered[1]:
        Load([entered[0]])
    return entered


def test_a_flight_fills(local: Local) -> None:
    """What a flight brings is found by its key and by its tags alone."""
    flight, leads = enter(local, "k", "t")
    assert leads
    assert local.fill(flight, slot("k", 1, "t"))
    found = local.lookup("k", ("t",))
    assert found is not None
    assert found.value == 1
    assert local.lookup("k", None) is found
    assert local.lookup("k", ()) is None


def test_callers_join(local: Local) -> None:
    """The second caller joins the flight of the first, until that has landed."""
    flight, _ = enter(local, "k", "t")
    assert enter(local, "k", "t") == (flight, False)
    local.land(flight, Outcome(1))
    assert flight.result() == Outcome(1)
    assert enter(local, "k", "t")[0] is not flight


def test_an_entry_that_came_in_meanwhile(local: Local) -> None:
    """A caller who finds an entry that it accepts flies nowhere."""
    flight, _ = enter(local, "k")
    local.fill(flight, slot("k"))
    local.land(flight, None)
    found = local.enter("k", (), lambda slot: True, lambda load: True)
    assert isinstance(found, Slot)
    assert not isinstance(local.enter("k", (), lambda s: False, lambda load: True), Slot)


@pytest.mark.parametrize("way", ["key", "tag", "all"])
def test_void_wins(local: Local, way: str) -> None:
    """An invalidation removes the entry, voids its flight, and callers start a new one."""
    old, _ = enter(local, "k", "t")
    local.fill(old, slot("k", "old", "t"))
    assert local.lookup("k", ("t",)) is not None
    if way == "key":
        local.void(["k"], [])
    elif way == "tag":
        local.void([], ["t"])
    else:
        local.void_all()
    assert local.lookup("k", ("t",)) is None
    assert not old.fills
    assert not local.fill(old, slot("k", "old", "t"))
    new, leads = enter(local, "k", "t")
    assert leads
    assert new is not old
    assert local.fill(new, slot("k", "new", "t"))


def test_others_are_not_voided(local: Local) -> None:
    """An invalidation leaves other keys and tags, and their flights, alone."""
    flight, _ = enter(local, "k", "t")
    local.fill(flight, slot("k", 1, "t"))
    local.void(["other"], ["other"])
    assert flight.fills
    assert local.lookup("k", ("t",)) is not None


@pytest.mark.parametrize("way", ["key", "tag", "all"])
def test_superseded_flights_are_voided(local: Local, way: str) -> None:
    """A flight that nobody joins any more is found by an invalidation all the same."""
    first, _ = enter(local, "k", "t")
    second, leads = enter(local, "k", "t", "u")  # of other tags: it takes the first one's place
    assert leads
    unjoined = local.begin("k", ("t",))
    if way == "key":
        local.void(["k"], [])
    elif way == "tag":
        local.void([], ["t"])
    else:
        local.void_all()
    for flight in (first, second, unjoined):
        assert not local.fill(flight, slot("k", "old", *(flight.tags or ())))


def test_one_that_may_not_join_flies_alone(local: Local) -> None:
    """Who may not wait for a load gets a flight of its own, and the first stays where it is."""
    first, _ = enter(local, "k")
    own, leads = enter(local, "k", join=False)
    assert leads
    assert own is not first
    assert enter(local, "k") == (first, False)
    local.land(own, None)
    assert enter(local, "k") == (first, False)


def test_unknown_tags(local: Local) -> None:
    """A copy whose tags were not known at its start is lost to any tag invalidated since."""
    before, after = local.begin("k", None), local.begin("k", None)
    assert local.fill(before, slot("k", 1, "t"))
    local.void([], ["something"])
    assert not local.fill(after, slot("k", 2, "t"))
    assert local.fill(after, slot("k", 2)), "without tags it cannot be meant"


def test_a_forced_refresh_replaces(local: Local) -> None:
    """What a forced refresh brings is not replaced by a load that began before it."""
    older, _ = enter(local, "k")
    refresh = local.begin("k", (), forced=True)
    assert local.fill(refresh, slot("k", "new"))
    assert not local.fill(older, slot("k", "old"))
    found = local.lookup("k", ())
    assert found is not None
    assert found.value == "new"


def test_the_later_of_two_refreshes_stays(local: Local) -> None:
    """A refresh that began later is kept, whichever of two is done first."""
    first, second = (local.begin("k", (), forced=True) for _ in range(2))
    assert local.fill(first, slot("k", "first"))
    assert local.fill(second, slot("k", "second"))
    first, second = (local.begin("k", (), forced=True) for _ in range(2))
    assert local.fill(second, slot("k", "second"))
    assert not local.fill(first, slot("k", "first"))


def test_time_is_over(local: Local, clock: FakeClock) -> None:
    """An entry past its time is not found, and the sweep takes it out."""
    flight, _ = enter(local, "k")
    local.fill(flight, slot("k", until=clock.monotonic() + 5))
    clock.advance(4)
    assert local.lookup("k", ()) is not None
    clock.advance(2)
    assert local.lookup("k", ()) is None
    clock.advance(60)
    assert local.sweep(10) == 1


def test_trust(local: Local, clock: FakeClock) -> None:
    """Without the bus an entry is found only as long as it vouches for itself."""
    flight, _ = enter(local, "k")
    entry = slot("k")
    entry.trusted_until = clock.monotonic() + 3
    local.fill(flight, entry)
    local.gate.trust(-FOREVER)
    assert local.lookup("k", ()) is entry
    clock.advance(3)
    assert local.lookup("k", ()) is None
    local.gate.trust(FOREVER)
    assert local.lookup("k", ()) is entry


def test_without_a_tier(clock: FakeClock) -> None:
    """Without L1 there are flights alone."""
    local = Local(None, clock, lambda reason: None)
    flight, leads = enter(local, "k")
    assert leads
    assert not local.fill(flight, slot("k"))
    local.void(["k"], [])
    assert not flight.fills
    assert local.lookup("k", ()) is None
    assert local.sweep(10) == 0


def test_loads_under_way(local: Local) -> None:
    """Every load that has not landed is found for closing, voided ones too."""
    flights = [enter(local, "a")[0], enter(local, "b")[0], local.begin("c", ())]
    Load(flights[2:])
    local.void(["a"], [])
    assert {id(load) for load in local.loads()} == {id(flight.load) for flight in flights}
    local.void_all()
    assert len(local.loads()) == 3
    for flight in flights:
        local.land(flight, None)
    assert local.loads() == []


def test_a_dead_load_is_not_joined(local: Local) -> None:
    """A flight whose thread has ended is given up, and a new one takes its place."""
    import threading

    flight, _ = enter(local, "k")
    assert flight.load is not None
    ended = threading.Thread()
    ended.start()
    ended.join()
    flight.load.thread = ended
    assert enter(local, "k")[1]
