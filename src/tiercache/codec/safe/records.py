"""Records: dataclasses, named tuples, typed dicts.

A record is the row of its fields, many records are one column per field: checking a column and
taking it apart are loops in C, which is what makes a list of records cheaper than pickling it.

Fields are put back as they were, without calling ``__init__`` or ``__post_init__``, as unpickling
does: a value that was computed when the record was made is not computed a second time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

from tiercache.codec.safe.generated import (
    Making,
    build_rows,
    by_attributes,
    by_items,
    lift_one,
    lower_columns,
    lower_one,
    slot_of,
    stores_plainly,
)
from tiercache.codec.safe.plan import Part, Plan, Refused, as_list, mismatch
from tiercache.codec.safe.tables import columns_of, keys_of, rows_of

Build = Callable[[Any], Any]
_STR: Final = frozenset({str})
_put = object.__setattr__


class Extra:
    """What stands in an instance's ``__dict__`` beside its fields.

    A `cached_property` computes itself again and may be left out; anything else would be lost.
    """

    def __init__(self, cls: type, fields: Collection[str]) -> None:
        members = [member for base in cls.__mro__ for member in vars(base).items()]
        computed = {name for name, member in members if isinstance(member, cached_property)}
        self.known = frozenset(fields) | computed if cls.__dictoffset__ else None
        """The names that may stand there; None where there is no ``__dict__``."""

    def check(self, *values: Any) -> None:
        """Refuse values that carry attributes which are not fields."""
        known = self.known
        if known is None or all(map(known.issuperset, map(_dict_of, values))):
            return
        names = set[str]().union(*map(_dict_of, values)) - known
        raise Refused(f"{sorted(names)} of it are not fields")


_dict_of = attrgetter("__dict__")


def _slots(cls: type) -> Collection[str]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def dataclass_plan(name: str, cls: type, fields: Mapping[str, Plan]) -> Plan:
    """Return the plan of a dataclass."""
    hidden = {name for base in cls.__mro__ for name in _slots(base)}
    hidden -= {*fields, "__dict__", "__weakref__"}
    if hidden:
        return refusing(
            name, cls, f"{cls.__qualname__} keeps {sorted(hidden)} in slots beside its fields"
        )
    try:
        object.__new__(cls)
    except TypeError as error:  # abstract, or on top of a builtin that has a state of its own
        return refusing(name, cls, f"{cls.__qualname__} cannot be rebuilt: {error}")
    new = partial(object.__new__, cls)
    making = by_attributes(cls, new, fields)
    names = tuple(fields)

    def build(row: Any) -> Any:
        record: Any = new()
        for field, value in zip(names, row, strict=True):
            _put(record, field, value)
        return record

    def by_columns(columns: list[list[Any]]) -> list[Any]:
        records: list[Any] = [new() for _ in columns[0]]
        for field, column in zip(names, columns, strict=True):
            if slot := slot_of(cls, field):
                deque(map(slot, records, column), maxlen=0)
            else:
                deque(map(_put, records, repeat(field), column), maxlen=0)
        return records

    build_all = build_rows(fields, making) if stores_plainly(cls) else by_columns
    return _rows(name, cls, fields, build, build_all, making)


def namedtuple_plan(name: str, cls: type, fields: Mapping[str, Plan]) -> Plan:
    """Return the plan of a named tuple."""
    build = partial(tuple.__new__, cls)

    def build_all(columns: list[list[Any]]) -> list[Any]:
        return list(map(build, zip(*columns, strict=True)))

    return _rows(name, cls, fields, build, build_all, by_items(build, fields))


def _rows(
    name: str,
    cls: type,
    fields: Mapping[str, Plan],
    build: Build,
    build_all: Callable[[list[list[Any]]], list[Any]],
    making: Making,
) -> Plan:
    columns = [(attrgetter(field), plan) for field, plan in fields.items()]
    plans = tuple(fields.values())
    extra = Extra(cls, () if issubclass(cls, tuple) else fields)
    only = frozenset({cls})

    def lower(value: Any) -> Any:
        if type(value) is not cls:
            raise unlike(value, cls)
        extra.check(value)
        try:
            return [plan.lower(get(value)) for get, plan in columns]
        except AttributeError as error:
            raise Refused(f"a field is not set: {error}") from error

    def lower_all(values: Collection[Any]) -> Any:
        if not (columns and values):  # no values: where a recursive type ends
            return [lower(value) for value in values]
        if not only.issuperset(map(type, values)):
            raise Refused(f"something in it is not exactly {cls.__qualname__}")
        extra.check(*values)
        try:
            return lower_fields(values)
        except AttributeError as error:
            raise Refused(f"a field is not set: {error}") from error

    def lift(wire: Any) -> Any:
        row = zip(plans, as_list(wire), strict=True)
        return build([plan.lift(item) for plan, item in row])

    def lift_all(wire: Any) -> list[Any]:
        if not (columns and as_list(wire)):
            return [lift(item) for item in as_list(wire)]
        row = zip(columns, as_list(wire), strict=True)
        lifted = [plan.lift_all(column) for (_, plan), column in row]
        if len(set(map(len, lifted))) > 1:
            raise Refused("columns of different lengths")
        return build_all(lifted)

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is cls:
            for field, plan in fields.items():
                if hasattr(value, field):
                    yield f".{field}", getattr(value, field), plan

    lower_fields = lower_columns(fields)
    return Plan(
        name,
        lower_one(cls, fields, extra.known, lower) if fields else lower,
        lift_one(fields, making, lift) if fields else lift,
        types=only,
        parts=parts,
        lower_all=lower_all,
        lift_all=lift_all,
    )


def typeddict_plan(
    name: str, cls: type, fields: Mapping[str, Plan], required: frozenset[str]
) -> Plan:
    """Return the plan of a typed dict: a map, in the order in which the dict has its keys."""

    def check(keys: Collection[str]) -> None:
        if not _STR.issuperset(map(type, keys)):
            raise Refused("not all of its keys are str")
        if missing := required.difference(keys):
            raise Refused(f"{sorted(missing)} of {cls.__qualname__} missing")
        if unknown := set(keys) - fields.keys():
            raise Refused(f"{sorted(unknown)} not in {cls.__qualname__}")

    def lower(value: Any) -> Any:
        if type(value) is not dict:
            raise mismatch(value, f"the dict {cls.__qualname__}")
        check(value)
        return {key: fields[key].lower(item) for key, item in value.items()}

    def lower_all(values: Collection[Any]) -> Any:
        keys = keys_of(values)
        if keys is None:
            return [None, [lower(value) for value in values]]
        check(keys)
        columns = zip(keys, columns_of(values, keys), strict=True)
        return [keys, [fields[key].lower_all(column) for key, column in columns]]

    def lift(wire: Any) -> Any:
        if type(wire) is not dict:
            raise mismatch(wire, f"the dict {cls.__qualname__}")
        check(wire)
        return {key: fields[key].lift(item) for key, item in wire.items()}

    def lift_all(wire: Any) -> list[Any]:
        keys, columns = as_list(wire)
        if keys is None:
            return [lift(row) for row in as_list(columns)]
        check(as_list(keys))
        pairs = zip(keys, as_list(columns), strict=True)
        return rows_of(keys, [fields[key].lift_all(column) for key, column in pairs])

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is dict:
            for key, plan in fields.items():
                if key in value:
                    yield f"[{key!r}]", value[key], plan

    return Plan(
        name,
        lower,
        lift,
        types=frozenset({dict}),
        parts=parts,
        lower_all=lower_all,
        lift_all=lift_all,
    )


def refusing(name: str, cls: type, message: str) -> Plan:
    """Return the plan of a type whose values cannot be kept."""

    def refuse(value: Any) -> Any:
        raise Refused(message)

    return Plan(f"refused {name}", refuse, refuse, types=frozenset({cls}))


def unlike(value: Any, cls: type) -> Refused:
    """Return the refusal of a value that is not exactly of the class."""
    found = type(value)
    if issubclass(found, cls):
        return Refused(
            f"{found.__qualname__} is a subclass of the annotated {cls.__qualname__}; "
            f"annotate {cls.__qualname__} | {found.__qualname__}"
        )
    return mismatch(value, cls.__qualname__)
