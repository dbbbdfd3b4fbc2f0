import gc
import sys
import tracemalloc
from collections import defaultdict, deque
from dataclasses import dataclass
from types import ModuleType

import pytest

from tests.tiercache.eviction.slots import make_slot
from tiercache.entry import Slot
from tiercache.eviction.cost import BUDGET, OVERHEAD, deep_size, entry_cost
from tiercache.tiers.memory import MemoryTier


@dataclass
class Plain:
    """An object with a dictionary."""

    first: object
    second: object = None


@dataclass(slots=True)
class Slotted:
    """An object without one."""

    first: object


BIG = "x" * 100_000


@pytest.mark.parametrize(
    "value",
    [
        BIG,
        BIG.encode(),
        [BIG],
        (BIG,),
        {BIG},
        frozenset({BIG}),
        deque([BIG]),
        {"a": BIG},
        {BIG: "a"},
        defaultdict(list, a=[BIG]),
        Plain(BIG),
        Slotted([{"a": (BIG,)}]),
        memoryview(BIG.encode()),
        bytearray(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_counts_what_a_value_refers_to(value: object) -> None:
    """A large text counts wherever in the value it is."""
    assert 100_000 < deep_size(value) < 102_000


def test_is_exact_for_ordinary_values() -> None:
    """For a value of some dozen parts the size is the sum of all of them."""
    row = {"id": 12345, "name": "somebody", "scores": [1.5, 2.5]}
    parts = [row, *row, 12345, "somebody", row["scores"], 1.5, 2.5]
    assert deep_size(row) == sum(map(sys.getsizeof, parts))


def test_counts_each_object_once() -> None:
    """What is referred to twice takes its place once."""
    assert deep_size([BIG, BIG, (BIG,)]) < 101_000


def test_a_cycle_ends() -> None:
    """A value that contains itself has a size."""
    value: list[object] = [BIG]
    value.append(value)
    node = Plain(value)
    node.second = node
    assert 100_000 < deep_size(node) < 101_000


def test_depth_does_not_matter() -> None:
    """A chain deeper than the recursion limit is measured."""
    value: object = None
    for _ in range(BUDGET - 1):
        value = (value,)
    assert sys.getrecursionlimit() < BUDGET
    assert deep_size(value) == (BUDGET - 1) * sys.getsizeof((None,)) + sys.getsizeof(None)


def test_the_program_does_not_count() -> None:
    """Classes, functions and modules belong to no value."""
    module = ModuleType("m")
    module.__dict__["text"] = BIG
    value = [Plain, deep_size, len, module, Plain(1).__repr__]
    assert deep_size(value) == sys.getsizeof(value)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ([str(number).zfill(50) for number in range(100_000)], 100_000 * 99),
        ({str(number).zfill(50): float(number) for number in range(50_000)}, 50_000 * (99 + 24)),
        ({str(number).zfill(50) for number in range(50_000)}, 50_000 * 99),
        ([[str(n).zfill(50) for n in range(i, i + 100)] for i in range(500)], 500 * (920 + 9_900)),
        (
            [
                {
                    str(i): {str(j): [f"{i}{j}{k}" for k in range(9)] for j in range(30)}
                    for i in range(30)
                }
            ],
            8_100 * 52 + 900 * (136 + 51),
        ),
        (deque(range(1_000, 100_000)), 99_000 * 28),
    ],
    ids=["list", "dict", "set", "lists", "nested", "deque"],
)
def test_large_values_are_estimated(value: object, parts: int) -> None:
    """Beyond the budget the estimate is near the truth for values of even make."""
    assert deep_size(value) == pytest.approx(sys.getsizeof(value) + parts, rel=0.25)


def tree(depth: int) -> object:
    """Return lists of lists, four in each, and a text at every end."""
    return [tree(depth - 1) for _ in range(4)] if depth else "x" * 1_000 + str(object())


def test_a_deep_value_is_estimated() -> None:
    """When the budget is used up, one part of each container speaks for the others."""
    size = 4**8 * 1_090 + (4**8 - 1) / 3 * sys.getsizeof([0] * 4)
    assert deep_size(tree(8)) == pytest.approx(size, rel=0.1)


def test_one_large_part_among_many_is_seen() -> None:
    """In rows of a table, the one long column counts."""
    row = {f"field{number}": number for number in range(25)}
    rows = [{**row, "text": "x" * 10_000 + str(number)} for number in range(2_000)]
    assert deep_size(rows) == pytest.approx(2_000 * (10_055 + sys.getsizeof(rows[0])), rel=0.1)


def test_one_large_part_does_not_use_up_the_budget_of_the_others() -> None:
    """What is beside a huge nested value is still looked into."""
    row = {**{f"field{number}": number for number in range(25)}, "text": "x" * 1_000_000}
    nested = [[[[0.5 + n] for n in range(30)] for _ in range(30)] for _ in range(30)]
    assert deep_size([row, nested]) > 1_000_000


def test_an_endless_chain_ends() -> None:
    """A chain is followed for as long as the budget allows, and no longer."""
    value: object = None
    for _ in range(10 * BUDGET):
        value = (value,)
    assert deep_size(value) <= 2 * BUDGET * sys.getsizeof((None,))


def test_measuring_looks_at_a_bounded_number_of_objects() -> None:
    """A huge value costs no more to measure than a large one."""
    asked = 0

    class Counted:
        def __sizeof__(self) -> int:
            nonlocal asked
            asked += 1
            return 50

    deep_size([[[Counted() for _ in range(60)] for _ in range(60)] for _ in range(60)])
    assert 100 < asked <= 2 * BUDGET


def test_an_object_that_lies_about_its_size_is_measured() -> None:
    """A broken ``__sizeof__`` is no reason to fail."""

    class Broken:
        def __sizeof__(self) -> int:
            return "large"  # type: ignore[return-value]

    assert deep_size([Broken()]) > 0


def test_a_lazy_proxy_is_left_asleep() -> None:
    """Measuring does not ask an object what it would like to be."""

    class Lazy:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise AssertionError("woken")

    assert deep_size([Lazy()]) > 0


def test_an_entry_costs_its_key_tags_value_and_overhead() -> None:
    """Nothing that an entry brings along is free."""
    slot = make_slot("k" * 1_000, "v" * 2_000, tags=("t" * 3_000,))
    assert OVERHEAD + 6_000 < entry_cost(slot) < OVERHEAD + 6_500


def test_the_overhead_is_what_is_allocated() -> None:
    """In a full tier an entry of a decorated function takes what is counted for it."""
    size, table = 5_000, dict[object, Slot]()
    numbers = [*range(1_000, 1_000 + 2 * size)]
    keys = [f"user:{number}" for number in numbers]
    tier = MemoryTier(max_bytes=size * entry_cost(make_slot(keys[-1])))
    gc.collect()
    tracemalloc.start()
    try:
        for number, key in zip(numbers, keys, strict=True):
            slot = make_slot(key, until=1e9 + number / 1_000)
            tier.store(slot)
            slot.name(table, (number, int, number, int))
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table) == tier.entries[0] == pytest.approx(size, abs=100)
    assert used / tier.entries[0] == pytest.approx(OVERHEAD, rel=0.1)
