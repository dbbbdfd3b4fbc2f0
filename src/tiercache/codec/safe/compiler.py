"""From an annotation to its plan.

An annotation that says nothing usable (a protocol, a callable, an unknown name) gives the plan of
values without annotation: that is exact too, and a refusal says why the annotation did not help.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import typing
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

from tiercache.codec.safe.choices import enumeration, literal
from tiercache.codec.safe.containers import collection, fixed_tuple, mapping
from tiercache.codec.safe.dynamic import DYNAMIC, noted
from tiercache.codec.safe.hints import Unresolved, fields_of, substitute
from tiercache.codec.safe.models import is_model, model_plan
from tiercache.codec.safe.plan import Plan, deferred
from tiercache.codec.safe.records import dataclass_plan, namedtuple_plan, typeddict_plan
from tiercache.codec.safe.scalars import NATIVES, NONE, SCALAR_PLANS
from tiercache.codec.safe.unions import union
from tiercache.keys.identity import class_identity

_COLLECTIONS: Final[dict[Any, tuple[type, ...]]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.MutableSequence: (list,),
    abc.Sequence: (list, tuple),
    abc.Set: (frozenset, set),
    abc.MutableSet: (set,),
    abc.Collection: (frozenset, list, set, tuple),
    abc.Iterable: (frozenset, list, set, tuple),
}
_MAPPINGS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_WRAPPERS: Final = ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")


class Compiler:
    """Make the plan of one annotation; ``shape`` is then all there is to know about it as text."""

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}
        self._open: set[Any] = set()
        self._definitions: set[str] = set()

    def shape(self, plan: Plan) -> str:
        """Return the plan's shape with the definition of every record in it."""
        return "\n".join([plan.shape, *sorted(self._definitions)])

    def plan(self, hint: Any) -> Plan:
        """Return the plan of an annotation."""
        if hint is Any or hint is object:
            return DYNAMIC
        if hint is None:
            return NONE
        if isinstance(hint, type) and (simple := NATIVES.get(hint) or SCALAR_PLANS.get(hint)):
            return simple
        origin, arguments = get_origin(hint) or hint, get_args(hint)
        if type(origin).__name__ == "TypeAliasType":
            return self._alias(hint, origin, arguments)
        if isinstance(hint, NewType):
            return self.plan(hint.__supertype__)
        if hasattr(hint, "__metadata__") or getattr(origin, "_name", None) in _WRAPPERS:
            return self.plan(arguments[0]) if arguments else DYNAMIC
        if origin is Union or origin is UnionType:
            return union([self.plan(argument) for argument in arguments])
        if origin is Literal:
            return literal(arguments)
        if origin is tuple:
            return self._tuple(hint, arguments)
        if origin in _MAPPINGS:
            key, item = arguments or (Any, Any)
            return mapping(self.plan(key), self.plan(item))
        if kinds := _COLLECTIONS.get(origin):
            item = self.plan(arguments[0] if arguments else Any)
            return union([collection(kind, item) for kind in kinds])
        if isinstance(origin, type):
            return self._class(hint, origin, arguments)
        if isinstance(hint, TypeVar) and hint.__bound__ is Unresolved:
            return noted(f"its annotation names {hint.__name__!r}, which is not known at run time")
        return DYNAMIC if isinstance(hint, TypeVar) else noted(f"{hint!r} says nothing about it")

    def _tuple(self, hint: Any, arguments: tuple[Any, ...]) -> Plan:
        if hint is tuple or hint is typing.Tuple:  # noqa: UP006  # the bare alias itself
            return collection(tuple, DYNAMIC)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return collection(tuple, self.plan(arguments[0]))
        return fixed_tuple([self.plan(argument) for argument in arguments])

    def _alias(self, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> Plan:
        def make() -> Plan:
            binding = dict(zip(origin.__type_params__, arguments, strict=False))
            return self.plan(substitute(origin.__value__, binding))

        return self._named(origin, f"{origin.__module__}.{hint}", None, make)

    def _class(self, hint: Any, cls: type, arguments: tuple[Any, ...]) -> Plan:
        if issubclass(cls, enum.Enum):
            return enumeration(cls)
        name = class_identity(cls)
        if arguments:
            name += f"[{','.join(self.plan(argument).shape for argument in arguments)}]"

        def make() -> Plan:
            if is_model(cls):
                return model_plan(name, cls, self._fields(name, _model_fields(cls)))
            hints = fields_of(cls, arguments)
            if _is_typeddict(cls):
                required = frozenset(key for key in hints if _is_required(cls, key, hints[key]))
                name_and_keys = f"{name} with {sorted(required)}"
                return typeddict_plan(name, cls, self._fields(name_and_keys, hints), required)
            if dataclasses.is_dataclass(cls):
                names = [field.name for field in dataclasses.fields(cls)]
                return dataclass_plan(name, cls, self._fields(name, _pick(hints, names)))
            names = cls._fields  # type: ignore[attr-defined]
            return namedtuple_plan(name, cls, self._fields(name, _pick(hints, names)))

        if _is_typeddict(cls):
            return self._named(cls, name, frozenset({dict}), make)
        if is_model(cls) or dataclasses.is_dataclass(cls) or _is_namedtuple(cls):
            return self._named(cls, name, frozenset({cls}), make)
        return noted(f"{cls.__qualname__} is not a type whose values are kept")

    def _named(
        self, origin: Any, name: str, types: frozenset[type] | None, make: Callable[[], Plan]
    ) -> Plan:
        """Return the one plan of what may contain itself: inside, a plan that stands for it."""
        key = origin, name
        if key in self._open:
            return deferred(name, types, lambda: self._plans[key])
        if key not in self._plans:
            self._open.add(key)
            self._plans[key] = make()
            self._open.remove(key)
        return self._plans[key]

    def _fields(self, name: str, hints: Mapping[str, Any]) -> dict[str, Plan]:
        fields = {field: self.plan(hint) for field, hint in hints.items()}
        inside = ",".join(f"{field}:{plan.shape}" for field, plan in fields.items())
        self._definitions.add(f"{name}={{{inside}}}")
        return fields


def _model_fields(cls: Any) -> dict[str, Any]:
    if not cls.__pydantic_complete__:
        cls.model_rebuild()
    return {name: field.annotation for name, field in cls.model_fields.items()}


def _pick(hints: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: hints.get(name, Any) for name in names}


def _is_namedtuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _is_typeddict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _is_required(cls: Any, key: str, hint: Any) -> bool:
    """Tell whether a key must be there; where annotations are text, the class does not know."""
    while True:
        marker = getattr(get_origin(hint), "_name", "")
        if marker == "Required" or marker == "NotRequired":
            return bool(marker == "Required")
        if marker != "ReadOnly" and not hasattr(hint, "__metadata__"):
            return bool(key in cls.__required_keys__)
        hint = get_args(hint)[0]
