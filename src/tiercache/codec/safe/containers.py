"""Containers of an annotated item: lists, tuples, sets and dicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import Any, Final

from tiercache.codec.safe.plan import Part, Plan, Refused, as_list, mismatch, short

_STR: Final = frozenset({str})
_LIST: Final = frozenset({list})
_NONE: Final = frozenset[type]()


def collection(kind: Any, item: Plan) -> Plan:
    """Return the plan of a list, tuple, set or frozenset of any length: a column of its items."""
    lower_items, lift_items = item.lower_all, item.lift_all

    def lower(value: Any) -> Any:
        if type(value) is not kind:
            raise mismatch(value, kind.__name__)
        return lower_items(value)

    def lift(wire: Any) -> Any:
        return kind(lift_items(wire))

    indexed = kind is list or kind is tuple
    items = item.native if kind is list else _NONE

    def own(values: Collection[Any]) -> bool:
        return _LIST.issuperset(map(type, values)) and items.issuperset(
            map(type, chain.from_iterable(values))
        )

    def lower_all(values: Collection[Any]) -> Any:
        return values if items and own(values) else [lower(value) for value in values]

    def lift_all(wire: Any) -> list[Any]:
        if items and own(as_list(wire)):
            return wire  # type: ignore[no-any-return]  # as_list saw that it is a list
        return [lift(value) for value in as_list(wire)]

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is kind:
            for index, part in enumerate(value):
                yield f"[{index}]" if indexed else f"<item {short(part)}>", part, item

    return Plan(
        f"{kind.__name__}[{item.shape}]",
        lower,
        lift_items if kind is list else lift,
        types=frozenset({kind}),
        items=items,
        parts=parts,
        lower_all=lower_all,
        lift_all=lift_all,
    )


def fixed_tuple(items: Sequence[Plan]) -> Plan:
    """Return the plan of a tuple whose every place has an annotation."""
    lowers = [item.lower for item in items]
    lifts = [item.lift for item in items]

    def lower(value: Any) -> Any:
        if type(value) is not tuple:
            raise mismatch(value, "tuple")
        if len(value) != len(lowers):
            raise Refused(f"a tuple of {len(value)} where {len(lowers)} are annotated")
        return [step(part) for step, part in zip(lowers, value, strict=True)]

    def lift(wire: Any) -> Any:
        return tuple([step(part) for step, part in zip(lifts, as_list(wire), strict=True)])

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is tuple and len(value) == len(items):
            for index, (part, item) in enumerate(zip(value, items, strict=True)):
                yield f"[{index}]", part, item

    shape = f"tuple({','.join(item.shape for item in items)})"
    return Plan(shape, lower, lift, types=frozenset({tuple}), parts=parts)


def mapping(key: Plan, item: Plan) -> Plan:
    """Return the plan of a dict: a map if it is native, else a column of keys and one of values."""
    if key.native == _STR and item.native:
        lower, lift = _native_map(item)
    else:
        lower, lift = _two_columns(key, item)

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is dict:
            for name, part in value.items():
                yield f"<key {short(name)}>", name, key
                yield f"[{short(name)}]", part, item

    shape = f"dict[{key.shape},{item.shape}]"
    return Plan(shape, lower, lift, types=frozenset({dict}), parts=parts)


def _native_map(item: Plan) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise mismatch(value, "dict")
        if not _STR.issuperset(map(type, value)):
            raise Refused("not all of its keys are str")
        item.lower_all(value.values())
        return value

    return check, check


def _two_columns(key: Plan, item: Plan) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def lower(value: Any) -> Any:
        if type(value) is not dict:
            raise mismatch(value, "dict")
        return [key.lower_all(list(value)), item.lower_all(list(value.values()))]

    def lift(wire: Any) -> Any:
        keys, values = as_list(wire)
        return dict(zip(key.lift_all(keys), item.lift_all(values), strict=True))

    return lower, lift
