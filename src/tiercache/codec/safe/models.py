"""pydantic models, field by field.

Not by ``model_dump`` and ``model_validate``: those forget which fields were set, private attributes
and subclasses in unions, rename by alias, and run validators that need not give the same value
twice. The four parts of a model's state are put back as pydantic's own unpickling does.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tiercache.codec.safe.dynamic import DYNAMIC
from tiercache.codec.safe.plan import Part, Plan, Refused, as_list
from tiercache.codec.safe.records import Extra, unlike
from tiercache.codec.safe.tables import rows_of

_put = object.__setattr__


def is_model(cls: type) -> bool:
    """Tell whether a class is a pydantic model, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def model_plan(name: str, cls: Any, fields: Mapping[str, Plan]) -> Plan:
    """Return the plan of a pydantic model."""
    beside = Extra(cls, fields)
    every = set(fields)

    def lower(value: Any) -> Any:
        return lower_all([value])

    def lower_all(values: Collection[Any]) -> Any:
        if not values:  # where a recursive type ends
            return []
        for value in values:
            if type(value) is not cls:
                raise unlike(value, cls)
        beside.check(*values)
        states = [value.__dict__ for value in values]
        try:
            columns = [plan.lower_all([state[f] for state in states]) for f, plan in fields.items()]
        except KeyError as error:
            raise Refused(f"the field {error} is not set") from error
        chosen = [value.__pydantic_fields_set__ for value in values]
        return [
            columns,
            [None if names == every else sorted(names) for names in chosen],
            DYNAMIC.lower_all([value.__pydantic_extra__ for value in values]),
            DYNAMIC.lower_all([value.__pydantic_private__ for value in values]),
        ]

    def lift(wire: Any) -> Any:
        (model,) = lift_all(wire)
        return model

    def lift_all(wire: Any) -> list[Any]:
        if not as_list(wire):
            return []
        columns, chosen, extras, privates = wire
        pairs = zip(fields.values(), as_list(columns), strict=True)
        lifted = [plan.lift_all(column) for plan, column in pairs]
        states = rows_of(tuple(fields), lifted) if fields else [{} for _ in as_list(chosen)]
        beyond = DYNAMIC.lift_all(extras), DYNAMIC.lift_all(privates)
        return [restore(*state) for state in zip(states, as_list(chosen), *beyond, strict=True)]

    def restore(state: dict[str, Any], chosen: Any, extra: Any, private: Any) -> Any:
        names = every.copy() if chosen is None else set(as_list(chosen))
        if not names - every <= set(extra or ()):
            raise Refused("a field that the model does not have")
        for attributes in (extra, private):
            if attributes is not None and type(attributes) is not dict:
                raise Refused("attributes that are not a dict")
        model = object.__new__(cls)
        _put(model, "__dict__", state)
        _put(model, "__pydantic_fields_set__", names)
        _put(model, "__pydantic_extra__", extra)
        _put(model, "__pydantic_private__", private)
        return model

    def parts(value: Any) -> Iterator[Part]:
        if type(value) is cls:
            for field, plan in fields.items():
                if field in value.__dict__:
                    yield f".{field}", value.__dict__[field], plan
            for state in (value.__pydantic_extra__, value.__pydantic_private__):
                for attribute, part in (state or {}).items():
                    yield f".{attribute}", part, DYNAMIC

    return Plan(
        name,
        lower,
        lift,
        types=frozenset({cls}),
        parts=parts,
        lower_all=lower_all,
        lift_all=lift_all,
    )
