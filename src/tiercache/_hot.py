"""The hot path: a function compiled for one signature, so that a hit costs what a dictionary does.

For ``async def get_user(user_id, limit=10)`` with ``tags=["user:{user_id}"]`` it is::

    async def get_user(user_id, limit=default_limit):
        try:
            slot = table[user_id, user_id.__class__, limit, limit.__class__]
        except (TypeError, AttributeError, KeyError):
            slot = nobody  # whose time is over
        if slot.serve_until > now() < gate.until:
            try:
                (tag,) = slot.marks
                live = not tag.void
            except ValueError:
                live = False
            if live:
                slot.visited += 1
                counters.l1 += 1
                return slot.value
        return await slow({"user_id": user_id, "limit": limit})

Python itself binds the arguments, so positional, keyword and default forms meet in one place
(``inspect.Signature.bind`` costs 2.1 us). The tuple is an *alias* of the entry's text key: the slow
path registers it when every value in it is of a type whose equality is the text's (`is_plain`),
and a value's class stands beside it because 1, True and 1.0 are equal in a dictionary. Where a
single int or str is all there is, it stands for itself (a quarter of the time of a hit).

An entry under an alias has the tags of the function that it belongs to, so their marks are unpacked
rather than looped over; there are fewer where two tags of a call are the same, and then the slow
path answers. A function without tags has none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from enum import Enum
from inspect import Parameter, Signature
from types import FunctionType
from typing import Any
from uuid import UUID

from tiercache._gate import Gate
from tiercache.entry import FOREVER, Slot
from tiercache.keys import has_cache_key, identity_token
from tiercache.keys.identity import tokens
from tiercache.stats import Counters

_PLAIN = frozenset({int, str, bytes, bool, type(None), UUID, date})
_INSTANCE = ".__cache_key__"
"""Ends the field of a method's instance."""
_ENUM_EQUALITY = (object.__eq__, int.__eq__, str.__eq__)


def is_plain(value: object) -> bool:
    """Whether two values of this one's class are equal exactly when their key texts are.

    Not so for Decimal (1.0 and 1.00), aware datetimes (two zones), containers (which may hold 1 or
    True), subclasses, and the two zeros of float.
    """
    kind = value.__class__
    if kind in _PLAIN or (kind is float and value != 0.0):
        return True
    if isinstance(value, type):
        return kind.__hash__ is type.__hash__
    return isinstance(value, Enum) and kind.__eq__ in _ENUM_EQUALITY


class Hot:
    """One function's compiled face, and the namespace that it reads.

    ``fields`` are the expressions over its parameters that tell two of its calls apart, in the key
    or in one of the tags, of which every call has ``tags`` (less those that are the same).

    ``table`` maps aliases to slots. A function of the default cache moves to another cache by
    `bind`: that puts the other's gate in and empties the table, so that the next call goes the
    slow way.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        signature: Signature,
        fields: Sequence[str],
        slow: Callable[[dict[str, Any]], Any],
        *,
        is_async: bool,
        tags: int = 0,
    ) -> None:
        self.table: dict[object, Slot] = {}
        self._signature = signature
        self._fields = tuple(fields)
        self._plain_names = not any("." in field for field in self._fields)
        self._is_async = is_async
        self._tags = tags
        self._bare = len(self._fields) == 1 and not self._fields[0].endswith(_INSTANCE)
        self._name = getattr(function, "__name__", "function")
        self._by_key = False
        self._touches = self._copies = self._looks = False
        self._prefix = "_tc_"
        while any(name.startswith(self._prefix) for name in signature.parameters):
            self._prefix += "_"
        self._globals: dict[str, Any] = {
            self._prefix + name: value
            for name, value in (
                ("slow", slow),
                ("errors", (TypeError, AttributeError, KeyError)),
                ("nobody", _NOBODY),
                ("fewer", ValueError),
                ("int", int),
                ("str", str),
                ("id", id),
                ("function", function),
                ("self", self_key),
                ("tokens", tokens),
                *_defaults(signature),
            )
        }
        self.bind(Gate(), Counters(), _long_ago, None, None)
        namespace = self._globals
        self.call: FunctionType = namespace[self._prefix + "call"]
        self.call.__qualname__ = getattr(function, "__qualname__", self._name)
        self.invoke: Callable[[dict[str, Any]], Any] = namespace[self._prefix + "invoke"]
        """Call the function itself with arguments that the compiled function has bound."""
        self.bound: Callable[..., dict[str, Any]] = namespace[self._prefix + "bound"]
        """Bind arguments as a call does, and return them by name."""
        self.bound.__qualname__ = self.call.__qualname__

    def bind(
        self,
        gate: Gate,
        counters: Counters,
        now: Callable[[], float],
        touch: Callable[[Slot], None] | None,
        copy: Callable[[Any], Any] | None,
        *,
        looks: bool = True,
    ) -> None:
        """Point the compiled function at one cache; ``looks``: it may find something by itself."""
        self.forget()
        self._looks = looks
        namespace, prefix = self._globals, self._prefix
        for name, value in (
            ("gate", gate),
            ("counters", counters),
            ("now", now),
            ("touch", touch),
            ("copy", copy),
        ):
            namespace[prefix + name] = value
        self._touches, self._copies = touch is not None, copy is not None
        self._compile()

    def forget(self) -> None:
        """Answer nothing by itself until new aliases are there.

        The table is another one from now on: a load that is still under way for the cache of before
        puts its alias into the old one.
        """
        self.table = {}
        self._globals[self._prefix + "table"] = self.table

    def _compile(self) -> None:
        namespace, prefix = self._globals, self._prefix
        source = self._source()
        old = namespace.get(prefix + "call")
        # Our own text: the names of parameters and fields, and nothing of their values.
        exec(compile(source, f"<tiercache {self._name}>", "exec"), namespace)  # noqa: S102
        new = namespace[prefix + "call"]
        new.__code__ = new.__code__.replace(co_name=self._name)
        if old is not None:  # whoever holds the function goes on with the new code
            old.__code__ = new.__code__
            namespace[prefix + "call"] = old

    def alias(self, arguments: dict[str, Any]) -> object | None:
        """Return the alias of a bound call, or None if it may not have one."""
        value: object
        values: list[object] = []
        if self._plain_names:
            for name in self._fields:
                value = arguments[name]
                kind = value.__class__
                if kind not in _PLAIN and not is_plain(value):
                    return None
                if self._bare and (kind is int or kind is str):
                    return value
                values += (value, kind)
            return tuple(values)
        for expression in self._fields:
            name, *path = expression.split(".")
            value = arguments[name]
            if expression.endswith(_INSTANCE):
                if not has_cache_key(value):
                    if self._by_key:  # its class is one of several, others of which have a key
                        return None
                    values.append(int(identity_token(value)))
                    continue
                if not self._by_key:
                    self._by_key = True
                    self.forget()
                    self._compile()
                value = self_key(value)
                if not is_plain(value[0]):
                    return None
                values.append(value)
                continue
            for attribute in path:
                value = getattr(value, attribute)
            kind = value.__class__
            if not is_plain(value):
                return None
            if self._bare and (kind is int or kind is str):
                return value
            values += (value, kind)
        return tuple(values)

    def _instance(self, name: str) -> str:
        # A live instance is known by the number that its address stands for while it lives.
        if self._by_key:  # as `self_key` does, without a call where it is an attribute or property
            p = self._prefix
            kind = f"{p}i.__class__"
            return (
                f"({p}i, {kind}, {name}.__class__) if ({p}i := {name}.__cache_key__).__class__ "
                f"is {p}str or {kind} is {p}int else {p}self({name}), "
            )
        return f"{self._prefix}tokens[{self._prefix}id({name})].number, "

    def _alias_source(self) -> str:
        p = self._prefix
        if self._bare:
            (field,) = self._fields
            value = field
            if "." in field:  # it may be a property: to be asked once
                value, field = f"{p}v", f"({p}v := {field})"
            kind = f"({p}k := {field}.__class__)"
            return f"{value} if {kind} is {p}int or {p}k is {p}str else ({value}, {p}k)"
        parts = (
            self._instance(field.removesuffix(_INSTANCE))
            if field.endswith(_INSTANCE)
            else f"{field}, {field}.__class__, "
            for field in self._fields
        )
        return f"({''.join(parts)})"

    def _source(self) -> str:
        p = self._prefix
        parameters = self._signature.parameters.values()
        kind, wait = ("async def", "await ") if self._is_async else ("def", "")
        value = f"{p}copy({p}slot.value)" if self._copies else f"{p}slot.value"
        arguments = ", ".join(f"{each.name!r}: {each.name}" for each in parameters)
        marks = [f"{p}m{number}" for number in range(self._tags)]
        live = (
            f"        try:\n"
            f"            ({', '.join(marks)},) = {p}slot.marks\n"
            f"            {p}live = not ({' or '.join(f'{mark}.void' for mark in marks)})\n"
            f"        except {p}fewer:\n"
            f"            {p}live = False\n"
            f"        if {p}live:\n"
        )
        hit = [f"{p}slot.visited += 1", f"{p}counters.l1 += 1", f"return {value}"]
        if self._touches:
            hit.insert(1, f"{p}touch({p}slot)")
        indent = " " * (12 if marks else 8)
        look = (
            f"    try:\n"
            f"        {p}slot = {p}table[{self._alias_source()}]\n"
            f"    except {p}errors:\n"
            f"        {p}slot = {p}nobody\n"
            f"    if {p}slot.serve_until > {p}now() < {p}gate.until:\n"
            f"{live if marks else ''}"
            f"{''.join(f'{indent}{line}{chr(10)}' for line in hit)}"
        )
        return (
            f"{kind} {p}call({_parameters(self._signature, p)}):\n"
            f"{look if self._looks else ''}"
            f"    return {wait}{p}slow({{{arguments}}})\n"
            f"def {p}bound({_parameters(self._signature, p)}):\n"
            f"    return {{{arguments}}}\n"
            f"def {p}invoke({p}a):\n"
            f"    return {p}function({_passed(self._signature, p)})\n"
        )


def self_key(instance: Any) -> tuple[object, ...]:
    """Return what stands for the instance of a method whose class has a ``__cache_key__``."""
    key = instance.__cache_key__
    if callable(key):
        key = key()
    return key, key.__class__, instance.__class__


def _parameters(signature: Signature, prefix: str) -> str:
    """Return the parameter list as source, defaults by name, annotations left out."""
    parts: list[str] = []
    parameters = list(signature.parameters.values())
    star = False
    for index, each in enumerate(parameters):
        if each.kind is Parameter.VAR_POSITIONAL:
            star = True
            parts.append(f"*{each.name}")
        elif each.kind is Parameter.VAR_KEYWORD:
            parts.append(f"**{each.name}")
        else:
            if each.kind is Parameter.KEYWORD_ONLY and not star:
                star = True
                parts.append("*")
            default = each.default is not Parameter.empty
            parts.append(f"{each.name}={prefix}default_{each.name}" if default else each.name)
        last = index + 1 == len(parameters)
        positional_only = each.kind is Parameter.POSITIONAL_ONLY
        if positional_only and (last or parameters[index + 1].kind is not each.kind):
            parts.append("/")
    return ", ".join(parts)


def _passed(signature: Signature, prefix: str) -> str:
    """Return the arguments of a call of the function itself, taken from the bound ones."""
    parts = []
    for each in signature.parameters.values():
        value = f"{prefix}a[{each.name!r}]"
        if each.kind is Parameter.VAR_POSITIONAL:
            parts.append(f"*{value}")
        elif each.kind is Parameter.VAR_KEYWORD:
            parts.append(f"**{value}")
        elif each.kind is Parameter.KEYWORD_ONLY:
            parts.append(f"{each.name}={value}")
        else:
            parts.append(value)
    return ", ".join(parts)


def _defaults(signature: Signature) -> list[tuple[str, object]]:
    return [
        (f"default_{each.name}", each.default)
        for each in signature.parameters.values()
        if each.default is not Parameter.empty
    ]


def _long_ago() -> float:
    return 0.0


_NOBODY = Slot(
    "", None, created=-FOREVER, refresh_at=-FOREVER, expires=-FOREVER, stale_until=-FOREVER
)
"""Stands where there is no slot, and saves the question."""
