"""Queues that run through what stands in them."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from tests.tiercache.eviction.slots import make_slot
from tiercache.entry import Slot
from tiercache.eviction.queue import Queue


def keys(queue: Queue[Slot]) -> str:
    """Walk both ways; return the keys from first to last."""
    forth = [slot.key for slot in queue]
    back, slot = [], queue.prev
    while slot is not queue:
        assert slot.queue is queue
        back.append(slot.key)
        slot = slot.prev
    assert forth == back[::-1]
    assert len(forth) == queue.length
    return "".join(forth)


def alone(slot: Slot) -> bool:
    """Whether the slot holds on to nobody."""
    return slot.queue is slot.prev is slot.next is None


def stand(names: str) -> tuple[Queue[Slot], list[Slot]]:
    """Return a queue with a slot for each letter, and the slots."""
    queue, slots = Queue[Slot](), [make_slot(name) for name in names]
    for slot in slots:
        queue.append(slot)
    return queue, slots


def test_what_leaves_from_anywhere_is_let_go() -> None:
    """From the front, the middle and the end, down to the last; nobody it knew is kept by it."""
    queue, slots = stand("abcd")
    for taken, left in [(1, "acd"), (0, "cd"), (3, "c"), (2, "")]:
        queue.remove(slots[taken])
        assert keys(queue) == left
        assert alone(slots[taken])


def test_another_takes_the_place_of_one() -> None:
    """In front, in between, at the end, and where it stands by itself."""
    queue, slots = stand("abc")
    for old, new in zip(slots, "xyz", strict=True):
        queue.substitute(old, make_slot(new))
        assert alone(old)
    assert keys(queue) == "xyz"
    queue, (only,) = stand("a")
    queue.substitute(only, make_slot("x"))
    assert keys(queue) == "x"


def test_clear_lets_everybody_go() -> None:
    """After a clear the queue is as new."""
    queue, slots = stand("abc")
    queue.clear()
    assert all(map(alone, slots))
    assert keys(queue) == ""
    queue.append(slots[1])
    assert keys(queue) == "b"


@given(
    st.lists(st.tuples(st.sampled_from(["append", "prepend", "rotate", "remove"]), st.integers(0)))
)
def test_stands_in_order_as_a_deque_does(steps: list[tuple[str, int]]) -> None:
    """Whatever is done, the order is that of a deque to which the same was done."""
    queue, model = Queue[Slot](), deque[Slot]()
    for number, (step, luck) in enumerate(steps):
        if step in ("append", "prepend"):
            slot = make_slot(chr(0x100 + number))
            getattr(queue, step)(slot)
            getattr(model, step.replace("prepend", "appendleft"))(slot)
        elif model:
            if step == "rotate":
                queue.rotate()
                model.rotate(-1)
            else:
                slot = model[luck % len(model)]
                queue.remove(slot)
                model.remove(slot)
                assert alone(slot)
        assert keys(queue) == "".join(slot.key for slot in model)
