"""The default order: what it keeps, how it adapts, and what it never does."""

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiercache.eviction.slots import hit, make_slot
from tiercache.entry import Slot
from tiercache.eviction.default import SAMPLE, Adaptive
from tiercache.eviction.election import FIRST, SHARES


class Model:
    """A cache of a size in cost, ordered by the default; and what must always hold."""

    def __init__(self, size: int) -> None:
        self.held: dict[str, Slot] = {}
        self.order = Adaptive(self.held.get)
        self.size = size

    def ask(self, key: str, cost: int = 1) -> bool:
        """Return whether the key was held; load it if not."""
        slot = self.held.get(key)
        if slot is not None:
            hit(self.order, slot)
            return True
        while sum(map(_cost, self.held.values())) + cost > self.size:
            victim = self.order.victim()
            assert self.held.pop(victim.key) is victim
        self.held[key] = slot = make_slot(key, cost=cost)
        self.order.add(slot)
        return False

    def discard(self, key: str) -> None:
        """Invalidate the key."""
        slot = self.held.pop(key, None)
        if slot is not None:
            self.order.discard(slot)

    def check(self) -> None:
        """Every slot is held once, costs add up, and what is remembered is bounded."""
        order = self.order
        window, main = parts(order)
        assert len(order) == len(self.held) == len(window) + len(main)
        assert {slot.key: slot for slot in window + main} == self.held
        assert order.cost == sum(map(_cost, self.held.values()))
        assert order._window_cost == sum(map(_cost, window))
        assert 2 * len(order._places) <= len(main) + 4 or len(order._places) <= self.size
        assert set(order._watched) == order._seen.keys()


def parts(order: Adaptive) -> tuple[list[Slot], list[Slot]]:
    """Return what is in the window and in main."""
    return [*order._window], [*order._main]


def _cost(slot: Slot) -> int:
    return slot.cost


def ratio(keys: list[str], size: int) -> float:
    """Return the hit ratio of a cache of so many entries."""
    held, hits = dict[str, Slot](), 0
    order = Adaptive(held.get)
    for key in keys:
        slot = held.get(key)
        if slot is not None:
            hits += 1
            hit(order, slot)
            continue
        if len(held) == size:
            del held[order.victim().key]
        held[key] = slot = make_slot(key)
        order.add(slot)
    return hits / len(keys)


steps = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "discard", "refresh"]), st.integers(0, 40)),
    max_size=300,
)


@settings(deadline=None)
@given(steps, st.integers(1, 30), st.randoms(use_true_random=False))
def test_nothing_is_lost_and_the_bound_holds(
    taken: list[tuple[str, int]], size: int, luck: Random
) -> None:
    """After any steps, what was added has left by a victim or a discard, or is held once."""
    model = Model(size)
    for step, number in taken:
        key = str(number)
        if step == "ask":
            model.ask(key, cost=luck.randint(1, min(size, 5)))
        elif step == "discard":
            model.discard(key)
        elif key in model.held:
            old = model.held[key]
            model.held[key] = make_slot(key, cost=old.cost)
            model.order.replace(old, model.held[key])
        model.check()
    while model.held:
        assert model.held.pop(model.order.victim().key)
    assert len(model.order) == model.order.cost == 0


@pytest.mark.parametrize("size", [1, 2, 3, 10, 300])
def test_memory_of_the_past_is_bounded(size: int) -> None:
    """However many keys come and go, what is remembered of them depends on the size alone."""
    model = Model(size)
    order = model.order
    for number in range(3_000):
        model.ask(str(number))
    for key in [*model.held]:
        model.discard(key)
    assert len(order._places) <= size
    assert len(order._watched) == len(order._seen) <= 2 * SAMPLE + 1


@pytest.mark.parametrize("evicted", [0, 1])
def test_what_leaves_without_evictions_is_forgotten(evicted: int) -> None:
    """Keys that are discarded one after the other leave nothing behind, full or not."""
    model = Model(100 - evicted)
    order = model.order
    for number in range(100):
        model.ask(str(number))
    model.size = 200
    for number in range(20_000):
        model.ask(f"brief:{number}")
        model.discard(f"brief:{number}")
    assert len(order._watched) == len(order._seen) <= 2 * SAMPLE + 1
    assert len(order._places) <= 100


def test_a_scan_costs_next_to_nothing() -> None:
    """Popular keys mixed with keys asked for once keep nearly all of their hits."""
    popular = [f"popular:{number}" for number in range(60)]
    scan = (f"once:{number}" for number in itertools.count())
    keys = [key for _ in range(200) for name in popular for key in (name, next(scan))]
    assert ratio(keys, 100) > 0.47


def test_a_loop_larger_than_the_cache_is_hit() -> None:
    """Where LRU hits nothing at all, three quarters of the keys are held and hit."""
    keys = [str(number) for number in range(400)] * 60
    assert ratio(keys, 300) > 0.6


def test_reuse_that_fades_is_hit_as_by_lru() -> None:
    """Where what is new is what is asked for, the window grows until it holds it."""
    keys = [str(number + back) for number in range(20_000) for back in (0, -150)]
    assert ratio(keys, 400) > 0.45


def test_adapts_when_the_times_change() -> None:
    """A loop, keys that fade, and the loop again: each gets its hits before long."""
    loop = [f"loop:{number}" for number in range(400)] * 50
    fading = [f"new:{number + back}" for number in range(10_000) for back in (0, -100)]
    assert ratio(loop + fading + loop, 300) > 0.5


def test_values_of_any_size_within_bytes() -> None:
    """Costs from one to a million: the bound holds, and popular small values are kept."""
    luck, model, hits = Random(1), Model(2_000_000), 0
    for number in range(3_000):
        hits += model.ask(f"popular:{luck.randrange(50)}", cost=1_000)
        model.ask(f"once:{number}", cost=luck.choice([1, 100, 1_000, 10_000, 100_000]))
        if number % 500 == 0:
            model.ask(f"huge:{number}", cost=1_000_000)
    model.check()
    assert hits > 0.75 * 3_000


def test_an_invalidated_slot_finds_its_place_again() -> None:
    """Who had made it to main is back in main when it is loaded anew, and only once."""
    model = Model(100)
    order = model.order
    for number in range(101):
        model.ask(str(number))
    for _ in range(2):
        assert model.held["50"].queue is order._main
        model.discard("50")
        model.ask("50")
        assert not order._places
    assert model.held["50"].queue is order._main


def test_what_has_left_is_not_taken_out_again() -> None:
    """A finaliser may discard a slot that is about to be evicted; the second time is too late."""
    model = Model(2)
    for name in "ab":
        model.ask(name)
    slot = model.held["a"]
    model.discard("a")
    model.order.discard(slot)
    assert len(model.order) == model.order.cost == 1
    assert not model.order._places


def test_clear_forgets_the_past_too() -> None:
    """Nothing learnt before a clear counts afterwards."""
    model = Model(100)
    order = model.order
    for number in range(1_000):
        model.ask(str(number))
    order.clear()
    assert all(each.queue is each.prev is each.next is None for each in model.held.values())
    model.held.clear()
    assert len(order) == order.cost == 0
    assert order.share == SHARES[FIRST]
    assert not order._places
    assert not order._watched
    order.add(make_slot("1"))
    assert order.victim().key == "1"
