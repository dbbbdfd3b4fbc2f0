"""A plan: how values of one annotation become plain wire values, and come back.

``lower`` turns a value into what MessagePack can say (None, bool, int, float, str, bytes, list,
dict with str keys, a datetime in UTC), ``lift`` turns that back. Both check every type they meet:
the first so that nothing is written that would come back different, the second because the bytes
may come from anybody. The ``_all`` forms work on a whole column at once, where the interpreter's C
loops do in one step what would be a call per item.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

Lower = Callable[[Any], Any]
Part = tuple[str, Any, "Plan"]


class Refused(ValueError):
    """Refuse one value; the message says what is wrong with it, `locate` says where it was."""


def no_parts(value: Any) -> Iterator[Part]:
    """Return nothing: the value has no inside."""
    return iter(())


class Plan:
    """How to lower and lift values of one annotation.

    ``shape`` is its text form, equal in every process that has the same annotation. ``types`` are
    the exact runtime types it takes, None for anything. ``native`` is not empty when every value
    it takes is its own wire form: then those are the types. ``items`` is not empty when every value
    it takes is a list that is its own wire form: then those are the types of what is in it.
    ``parts`` lists the inside of a value as (step, part, plan), to find the part that was refused.
    """

    __slots__ = (
        "items",
        "lift",
        "lift_all",
        "lower",
        "lower_all",
        "native",
        "parts",
        "shape",
        "types",
    )

    def __init__(
        self,
        shape: str,
        lower: Lower,
        lift: Lower,
        *,
        types: frozenset[type] | None = None,
        native: frozenset[type] = frozenset(),
        items: frozenset[type] = frozenset(),
        parts: Callable[[Any], Iterable[Part]] = no_parts,
        lower_all: Callable[[Collection[Any]], Any] | None = None,
        lift_all: Callable[[Any], list[Any]] | None = None,
    ) -> None:
        self.shape = shape
        self.lower = lower
        self.lift = lift
        self.types = types
        self.native = native
        self.items = items
        self.parts = parts
        self.lower_all = lower_all or (lambda values: [lower(value) for value in values])
        self.lift_all = lift_all or (lambda wire: [lift(item) for item in as_list(wire)])


def native(shape: str, *types: type) -> Plan:
    """Return the plan of values that are their own wire form."""
    allowed = frozenset(types)

    def check(value: Any) -> Any:
        if type(value) not in allowed:
            raise mismatch(value, shape)
        return value

    def lower_all(values: Collection[Any]) -> Any:
        if not allowed.issuperset(map(type, values)):
            raise Refused(f"something in it is not {shape}")
        return values

    def lift_all(wire: Any) -> list[Any]:
        lower_all(as_list(wire))
        return wire  # type: ignore[no-any-return]  # as_list saw that it is a list

    return Plan(
        shape,
        check,
        check,
        types=allowed,
        native=allowed,
        lower_all=lower_all,
        lift_all=lift_all,
    )


def deferred(shape: str, types: frozenset[type] | None, target: Callable[[], Plan]) -> Plan:
    """Return a plan that stands for another one that is still being made: a recursive type."""
    return Plan(
        shape,
        lambda value: target().lower(value),
        lambda wire: target().lift(wire),
        types=types,
        parts=lambda value: target().parts(value),
        lower_all=lambda values: target().lower_all(values),
        lift_all=lambda wire: target().lift_all(wire),
    )


def as_list(wire: Any) -> list[Any]:
    """Return the wire value if it is a list, as it must be here."""
    if type(wire) is not list:
        raise Refused(f"{type(wire).__name__} where a list belongs")
    return wire


def mismatch(value: Any, expected: str) -> Refused:
    """Return the refusal of a value that is not of the expected type."""
    return Refused(f"{type(value).__qualname__} is not {expected}")


def short(value: object) -> str:
    """Return a few characters of a value's repr, for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer with more digits than Python is willing to print
        return f"<{type(value).__qualname__}>"


def locate(plan: Plan, value: Any, refusal: Refused) -> tuple[str, Refused]:
    """Return the path inside the value to what was refused, and the innermost refusal.

    A slow second walk, so that the first one can do without paths.
    """
    path = ""
    found = True
    while found:
        found = False
        for step, part, inner in plan.parts(value):
            try:
                inner.lower(part)
            except Refused as deeper:
                path, plan, value, refusal, found = path + step, inner, part, deeper, True
                break
            except RecursionError:  # met first on this walk, which takes another way round
                return path + step, Refused("nested too deeply, or contains itself")
    return path, refusal
