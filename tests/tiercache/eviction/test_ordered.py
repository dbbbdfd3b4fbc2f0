import gc
import threading
import weakref

import pytest

from tests.tiercache.eviction.slots import drain, fill, hit, make_slot
from tiercache.eviction.base import Eviction
from tiercache.eviction.lfu import LFU
from tiercache.eviction.lru import LRU
from tiercache.eviction.ttl import TTL

ORDERS = pytest.mark.parametrize("make", [LRU, LFU, TTL])


@ORDERS
def test_hits_from_many_threads_while_slots_come_and_go(make: type[Eviction]) -> None:
    """Touching without a lock corrupts nothing: every slot still leaves exactly once."""
    order = make()
    slots = [make_slot(str(number)) for number in range(300)]
    for slot in slots:
        order.add(slot)
    stop = threading.Event()

    def touch() -> None:
        while not stop.is_set():
            for slot in slots:
                hit(order, slot)

    threads = [threading.Thread(target=touch) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for slot in slots[:100]:
            order.discard(slot)
        replaced = [make_slot(slot.key) for slot in slots[100:200]]
        for old, new in zip(slots[100:200], replaced, strict=True):
            order.replace(old, new)
        left = [order.victim() for _ in range(200)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert {id(slot) for slot in left} == {id(slot) for slot in replaced + slots[200:]}


@ORDERS
def test_a_hit_on_a_slot_that_left_changes_nothing(make: type[Eviction]) -> None:
    """A reader may touch a slot that has just been taken out."""
    order = make()
    slots = fill(order, "ab")
    order.discard(slots["a"])
    hit(order, slots["a"])
    order.settle()
    assert order.victim() is slots["b"]


@ORDERS
def test_a_slot_that_left_is_not_kept_alive(make: type[Eviction]) -> None:
    """The hit buffer lets go of a slot when the order does, so its value is freed."""
    order = make()
    slot = make_slot("a", threading.Event())
    gone = weakref.ref(slot.value)
    order.add(slot)
    hit(order, slot)
    order.discard(slot)
    del slot
    gc.collect()
    assert gone() is None


@ORDERS
def test_a_value_that_calls_back_while_hits_are_replayed(make: type[Eviction]) -> None:
    """The last hit on a slot may be all that keeps its value; its finaliser may use the order."""
    order = make()
    calls = []

    class Value:
        def __del__(self) -> None:
            order.settle()
            calls.append(1)

    slots = fill(order, "ab")
    late = make_slot("late", Value())
    order.add(late)
    order.discard(late)
    hit(order, late)
    del late
    for _ in range(3):
        hit(order, slots["a"])
    order.settle()
    assert calls == [1]
    assert order.victim() is slots["b"]


@ORDERS
def test_replacing_gives_the_new_slot(make: type[Eviction]) -> None:
    """After a replacement, the victim of that key is the new slot."""
    order = make()
    old, new = make_slot("a"), make_slot("a")
    order.add(old)
    order.replace(old, new)
    assert order.victim() is new


@ORDERS
def test_clear_forgets_slots_and_hits(make: type[Eviction]) -> None:
    """After a clear the order starts from nothing."""
    order = make()
    hit(order, fill(order, "abc")["a"])
    order.clear()
    fill(order, "ab")
    assert set(drain(order, 2)) == set("ab")
