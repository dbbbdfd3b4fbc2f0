from tests.tiercache.eviction.slots import make_slot
from tiercache.eviction.touches import CAPACITY, Touches


def test_replays_hits_in_order_and_once() -> None:
    """What was touched comes out in that order, and is gone afterwards."""
    touches = Touches()
    slots = [make_slot(name) for name in "abc"]
    for slot in slots:
        touches.append(slot)
    assert list(touches.drain()) == slots
    assert list(touches.drain()) == []


def test_hits_during_a_replay_wait_for_the_next() -> None:
    """A replay ends although other threads keep touching."""
    touches = Touches()
    slot = make_slot("a")
    touches.append(slot)
    for _ in touches.drain():
        touches.append(slot)
    assert list(touches.drain()) == [slot]


def test_a_full_buffer_keeps_the_latest_hits() -> None:
    """Hits beyond the capacity push out the oldest ones, so memory stays bounded."""
    touches = Touches()
    slots = [make_slot(str(number)) for number in range(CAPACITY + 1)]
    for slot in slots:
        touches.append(slot)
    assert list(touches.drain()) == slots[1:]


def test_clear_drops_hits() -> None:
    """Nothing is replayed after a clear."""
    touches = Touches()
    touches.append(make_slot("a"))
    touches.clear()
    assert list(touches.drain()) == []
