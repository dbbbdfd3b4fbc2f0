"""Window, main and the filter between them."""

from tests.tiercache.eviction.slots import make_slot
from tiercache.entry import Slot
from tiercache.eviction.windowed import MOVED, PATIENCE, ROUNDS, Windowed


def order(share: float, names: str = "abcdefghij") -> tuple[Windowed[Slot], dict[str, Slot]]:
    """Return an order that holds a slot for each letter, and the slots."""
    held = Windowed[Slot](share)
    slots = {name: make_slot(name) for name in names}
    for slot in slots.values():
        held.add(slot)
    return held, slots


def find(held: Windowed[Slot], key: str) -> Slot | None:
    """Return what is held under the key."""
    return next(
        (slot for part in (held._window, held._main) for slot in part if slot.key == key), None
    )


def ask(held: Windowed[Slot], key: str, size: int = 10) -> bool:
    """Ask for a key as a cache of that size does; return whether it was held."""
    slot = find(held, key)
    if slot is not None:
        slot.visited += 1
        return True
    if len(held) == size:
        held.victim()
    held.add(make_slot(key))
    return False


def test_all_window_is_a_clock() -> None:
    """With a share of 1 the oldest goes, unless it was hit: then it goes round once."""
    held, slots = order(1.0)
    slots["a"].visited = 5
    assert [held.victim().key for _ in range(10)] == [*"bcdefghij", "a"]


def test_who_comes_once_passes_through() -> None:
    """Newcomers asked for once leave the window again, and those in main stay."""
    held, _ = order(0.1, "")
    for number in range(100):
        ask(held, f"first {number}", 100)
    for number in range(300):
        ask(held, str(number), 100)
    assert sum(find(held, f"first {number}") is not None for number in range(90)) > 75


def test_who_is_asked_for_more_often_comes_in() -> None:
    """A key that keeps coming back takes the place of one in main that nobody asks for."""
    held, _ = order(0.1)
    for number in range(3):
        ask(held, "again")
        ask(held, f"other {number}")
        ask(held, f"another {number}")
    assert find(held, "again")
    assert not find(held, "a")


def test_a_loop_does_not_wash_main_out() -> None:
    """A loop larger than the cache is hit by as many as main holds, round after round."""
    held, _ = order(0.1, "")
    keys = [str(number) for number in range(15)]
    hits = sum(ask(held, key) for _ in range(100) for key in keys)
    assert hits > 1_500 * 0.5


def test_hits_in_quick_succession_count_once() -> None:
    """In the window a hundred hits buy no more than one: another round."""
    for hits in (1, 100):
        held, slots = order(1.0, "abc")
        slots["a"].visited = hits
        assert held.victim().key == "b"
        assert slots["a"].visited == 0


def test_hits_buy_few_rounds_in_main() -> None:
    """A slot with a million hits leaves once it has gone round without any more."""
    held, slots = order(0.01)
    slots["a"].visited = 1_000_000
    held.victim()
    rounds = slots["a"].visited
    assert rounds < ROUNDS
    left = [held.victim().key for _ in range(9)]
    assert left[-1] == "a" or "a" not in left


def test_one_eviction_is_bounded_when_everything_is_popular() -> None:
    """No single call walks the whole cache, however many hits there were."""
    for share in (0.01, 0.5, 1.0):
        held = Windowed[Slot](share)
        slots = [make_slot(str(number)) for number in range(5 * PATIENCE)]
        for slot in slots:
            held.add(slot)
            slot.visited = 1
        held.victim()
        assert sum(slot.visited == 0 for slot in slots) <= PATIENCE + 1


def test_parts_are_made_in_bounded_time() -> None:
    """When a large cache is full for the first time, its slots are not moved one by one."""
    held = Windowed[Slot](0.5)
    for number in range(4 * MOVED):
        held.add(make_slot(str(number)))
    held.victim()
    assert held._window.length <= MOVED


def test_a_share_that_changes_moves_slots_and_loses_none() -> None:
    """Window and main grow and shrink with the share; what was held is held or has left."""
    held, _ = order(0.1, "")
    number = 0
    for share in (0.1, 0.8, 1.0, 0.01, 0.5):
        held.share = share
        for _ in range(300):
            number += 1
            if len(held) == 100:
                held.victim()
            held.add(make_slot(str(number)))
        assert abs(held._window.length - 100 * share) <= 2
        assert len(held) == 100


def test_shares_are_shares_of_cost() -> None:
    """One large newcomer fills the window as many small ones would."""
    held, _ = order(0.3, "abcdefghijklmnopqrstuvwxyz")
    held.victim()
    held.add(make_slot("large", cost=12))
    assert "large" in [held.victim().key for _ in range(8)]
    parts = [*held._window, *held._main]
    assert held.cost == sum(slot.cost for slot in parts)


def test_a_replaced_slot_keeps_its_standing() -> None:
    """A refresh takes the old slot's place and hits, in the window as in main."""
    for share in (0.01, 1.0):
        held, slots = order(share, "abc")
        slots["a"].visited = 1
        held.victim()
        new = make_slot("a", cost=2)
        held.replace(slots["a"], new)
        assert find(held, "a") is new
        assert new.visited == slots["a"].visited
        assert held.cost == 3
