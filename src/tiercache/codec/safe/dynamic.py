"""Values without an annotation: they say themselves what they are.

None, bool, int, float, str, bytes and a datetime in UTC are their own wire form, and so is a dict
whose keys are all str. Everything else is a list that begins with the code of its type; a list of
dicts with equal keys is a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from tiercache.codec.safe.plan import Part, Plan, Refused, as_list, short
from tiercache.codec.safe.scalars import NATIVE, SCALARS, SCALARS_BY_CODE
from tiercache.codec.safe.tables import columns_of, keys_of, rows_of

MAX_DEPTH: Final = 200
"""How deep containers may be nested: far below the interpreter's limit, equal on both sides."""

_SEQUENCES: Final[dict[type, int]] = {list: 0, tuple: 1, set: 2, frozenset: 3}
_SEQUENCES_BY_CODE: Final[dict[int, type]] = {code: kind for kind, code in _SEQUENCES.items()}
_DICT: Final = 4
_TABLE: Final = 13
_STR: Final = frozenset({str})


class TooDeep(Refused):
    """Refuse a value that is nested too deeply, as one that contains itself is."""

    def __init__(self) -> None:
        super().__init__(f"nested deeper than {MAX_DEPTH} levels, or contains itself")


def lower(value: Any, depth: int = 0) -> Any:
    """Return the wire form of a value of the builtin types."""
    kind = type(value)
    if kind in NATIVE:
        return value
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        if _STR.issuperset(map(type, value)):
            if NATIVE.issuperset(map(type, value.values())):
                return value
            return {
                key: item if type(item) in NATIVE else lower(item, depth)
                for key, item in value.items()
            }
        wire: list[Any] = [_DICT]
        for key, item in value.items():
            wire.append(lower(key, depth))
            wire.append(lower(item, depth))
        return wire
    code = _SEQUENCES.get(kind)
    if code is not None:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        if NATIVE.issuperset(map(type, value)):
            return [code, *value]
        if kind is list and (keys := keys_of(value)):
            return [_TABLE, keys, *[lower(column, depth) for column in columns_of(value, keys)]]
        return [
            code,
            *[item if type(item) in NATIVE else lower(item, depth) for item in value],
        ]
    scalar = SCALARS.get(kind)
    if scalar is None:
        raise Refused(f"{kind.__qualname__} needs a type to come back as")
    small = scalar.lower(value)
    return small if small is value and value.tzinfo else [scalar.code, small]


def lift(wire: Any, depth: int = 0) -> Any:
    """Return the value of a wire form that `lower` made."""
    kind = type(wire)
    if kind in NATIVE or kind is datetime:
        return wire
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        if not _STR.issuperset(map(type, wire)):
            raise Refused("a map with keys that are not str")
        if NATIVE.issuperset(map(type, wire.values())):
            return wire
        return {
            key: item if type(item) in NATIVE else lift(item, depth) for key, item in wire.items()
        }
    if kind is not list or not wire or type(wire[0]) is not int:
        raise Refused("a list without the code of its type")
    code = wire[0]
    container = _SEQUENCES_BY_CODE.get(code)
    if container is not None:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        del wire[0]
        items = wire
        if not NATIVE.issuperset(map(type, wire)):
            items = [item if type(item) in NATIVE else lift(item, depth) for item in wire]
        return items if container is list else container(items)
    if code == _DICT:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        keys = [lift(key, depth) for key in wire[1::2]]
        values = [lift(item, depth) for item in wire[2::2]]
        return dict(zip(keys, values, strict=True))
    if code == _TABLE:
        if depth >= MAX_DEPTH:
            raise TooDeep
        depth += 1
        _, keys, *columns = wire
        if not _STR.issuperset(map(type, keys)):
            raise Refused("a table with keys that are not str")
        return rows_of(keys, [as_list(lift(column, depth)) for column in columns])
    _, small = wire
    return SCALARS_BY_CODE[code].lift(small)


def parts(value: Any) -> Iterator[Part]:
    """List the inside of a container."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            yield f"<key {short(key)}>", key, DYNAMIC
            yield f"[{short(key)}]", item, DYNAMIC
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            yield f"[{index}]", item, DYNAMIC
    elif kind is set or kind is frozenset:
        for item in value:
            yield f"<item {short(item)}>", item, DYNAMIC


DYNAMIC: Final = Plan(
    "Any",
    lower,
    lift,
    parts=parts,
    lower_all=lambda values: lower(list(values)),
    lift_all=lambda wire: as_list(lift(wire)),
)


def noted(note: str) -> Plan:
    """Return the plan of an annotation that says nothing usable; a refusal tells why."""

    def lower_or_tell(value: Any) -> Any:
        try:
            return lower(value)
        except Refused as refusal:
            raise Refused(f"{refusal} ({note})") from refusal

    return Plan("Any", lower_or_tell, lift, parts=parts)
