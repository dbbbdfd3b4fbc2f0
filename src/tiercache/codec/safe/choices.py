"""One of several values: literals and enumerations."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from tiercache.codec.safe.plan import Plan, Refused, mismatch, short
from tiercache.keys.identity import class_identity


def literal(options: Sequence[Any]) -> Plan:
    """Return the plan of a ``Literal``: the place of the value among the options.

    These are sorted, because a ``Literal`` equals one of the same options in another order.
    """
    options = sorted(options, key=lambda option: (type(option).__qualname__, repr(option)))
    places = {(type(option), option): place for place, option in enumerate(options)}
    shape = f"Literal[{','.join(map(repr, options))}]"

    def lower(value: Any) -> Any:
        place = places.get((type(value), value)) if type(value) in types else None
        if place is None:
            raise Refused(f"{short(value)} is not {shape}")
        return place

    def lift(wire: Any) -> Any:
        if type(wire) is not int or not 0 <= wire < len(options):
            raise Refused(f"no option of {shape}")
        return options[wire]

    types = frozenset(map(type, options))
    return Plan(shape, lower, lift, types=types)


def enumeration(cls: type[enum.Enum]) -> Plan:
    """Return the plan of an enumeration: the member's name, or the value of a flag."""
    if issubclass(cls, enum.Flag):
        return _flag(cls)
    members = cls.__members__

    def lower(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls.__qualname__)
        if members.get(value.name) is not value:
            raise Refused(f"{short(value)} is not among the members of {cls.__qualname__}")
        return value.name

    def lift(wire: Any) -> Any:
        return members[wire]

    return Plan(f"enum {class_identity(cls)}", lower, lift, types=frozenset({cls}))


def _flag(cls: type[enum.Flag]) -> Plan:
    bits = ",".join(f"{name}={member.value!r}" for name, member in cls.__members__.items())

    def lower(value: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, cls.__qualname__)
        return value.value

    def lift(wire: Any) -> Any:
        if type(wire) is not int:
            raise mismatch(wire, "the value of a flag")
        flag = cls(wire)
        # Some boundaries drop bits that are not theirs, and Python 3.11.2 does so with every one.
        if type(flag) is not cls or flag.value != wire:
            raise Refused(f"{wire} is no value of {cls.__qualname__}")
        return flag

    return Plan(f"flag {class_identity(cls)}({bits})", lower, lift, types=frozenset({cls}))
