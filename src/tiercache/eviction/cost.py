"""How many bytes an entry takes, roughly and quickly.

A value is walked by a loop of our own, so neither depth nor a cycle matters, and on a budget, which
at any moment is shared evenly by all that is still to be looked into. A container with more parts
than its share allows is judged by some of them, evenly spread where it has an order; once the
budget is used up, by a single one.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice
from math import isqrt
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

from tiercache.entry import Slot

OVERHEAD: Final = 400
"""Bytes an entry takes beside its key, tags and value: the slot with its time and links, the alias
of a decorated call, its places in the two tables, its counters in the sketch. Without an alias it
is 130 less; with times of its own for refresh, staleness or trust, 90 more."""

BUDGET: Final = 4_096
"""Objects that are looked at for one value, twice as many if it is deep: a millisecond or two."""

_LEAVES: Final = frozenset({str, bytes, int, float, bool, complex, type(None)})
"""What refers to nothing else."""

_PROGRAM: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, CodeType)
"""What belongs to the program, not to the value that refers to it."""

_UNKNOWN_SIZE: Final = 64


def entry_cost(slot: Slot) -> int:
    """Return the bytes a slot takes with its key, tags and value, the fixed overhead included."""
    return OVERHEAD + sys.getsizeof(slot.key) + deep_size(slot.tags) + deep_size(slot.value)


def deep_size(value: object) -> int:
    """Return the bytes of an object and of all it refers to, each object counted once.

    As exact as `sys.getsizeof` for values made of a few dozen containers, an estimate for larger
    ones. Classes, functions and modules do not count.
    """
    size, left = 0.0, BUDGET
    known: set[int] = set()
    stack = [(value, 1.0)]  # with the number of objects that each stands for
    while stack:
        item, weight = stack.pop()
        if id(item) in known or issubclass(type(item), _PROGRAM):
            continue
        known.add(id(item))
        left -= 1
        size += weight * sys.getsizeof(item, _UNKNOWN_SIZE)
        share = max(left // (len(stack) + 1), 1 if left > -BUDGET else 0)
        count, parts = _parts(item, share)
        nested = []
        for part in parts:
            if type(part) not in _LEAVES:
                nested.append(part)
            elif id(part) not in known:
                known.add(id(part))
                left -= 1
                size += weight * count / len(parts) * sys.getsizeof(part)
        if nested:
            chosen = _spread(nested, isqrt(share))
            weight *= count / len(parts) * len(nested) / len(chosen)
            stack.extend((part, weight) for part in chosen)
    return round(size)


def _parts(item: object, most: int) -> tuple[int, Sequence[object]]:
    """Return how many objects an object refers to, and up to ``most`` of them.

    The kind of an object is its type: ``isinstance`` would wake a lazy proxy.
    """
    kind = type(item)
    container = cast("Any", item)
    try:
        if issubclass(kind, list | tuple):
            return len(container), _spread(container, most)
        if issubclass(kind, dict):
            return 2 * len(container), [*chain(*islice(container.items(), -(-most // 2)))]
        if issubclass(kind, set | frozenset | deque):
            return len(container), [*islice(container, most)]
    except RuntimeError:  # changed by another thread while we looked
        return 0, ()
    parts = gc.get_referents(item)
    return len(parts), _spread(parts, most)


def _spread(parts: Sequence[object], most: int) -> Sequence[object]:
    """Return up to ``most`` of the parts, evenly spread."""
    return parts[:: -(-len(parts) // most) or 1] if most else ()
